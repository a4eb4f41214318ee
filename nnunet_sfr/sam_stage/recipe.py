"""The recipe of a fine-tuning run: all that a run which continues or stands for another must share with it, as text."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.data.preprocessed_files import image_hashes
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import FINAL_ADAPTER, Fold
from nnunet_sfr.sam_stage.model import adapter_files, adapter_metadata, recipe_of
from nnunet_sfr.sam_stage.rounds import Round, open_round
from nnunet_sfr.settings import FINE_TUNING_IN_ROUNDS

_CONTENT = "content_of_case"
"""In the recipe, by case: image, label and the parts of the plan that they depend on; what differs is named so."""


def fine_tuning_recipe(dataset: SFRDataset, fold: Fold, this_round: Round) -> str:
    """Settings, labelled cases and their content, the base model and what the round starts from, as JSON, sorted keys.

    Args:
        dataset: planned and preprocessed.
        fold: whose training cases SAM learns from.
        this_round: of SFR+; round 0 for SFR.
    """
    settings = dataset.settings.to_dict()
    relevant = {key: settings[key] for key in ("stitching", "sam", "fine_tuning")}
    # as version 0.1 wrote it, whose runs can be continued
    relevant["fine_tuning"]["warmup_iterations"] = dataset.settings.fine_tuning.warmup_iterations
    del relevant["fine_tuning"]["warmup_fraction"]
    split = dataset.split(fold)
    cases = {"cases": split, _CONTENT: image_hashes(dataset.paths.labelled, sorted({*split[0], *split[1]}))}
    return json.dumps({**relevant, **adapter_metadata(dataset), **cases, **this_round.recipe}, sort_keys=True)


def cases_changed_since(recipe: Mapping[str, Any], dataset: SFRDataset) -> list[str]:
    """Labelled cases that are there with another image or label than SAM learned from, sorted.

    Args:
        recipe: of the run; one of version 0.2.0 does not know.
        dataset: as it is now.

    Raises:
        UserError: a case's properties are damaged.
    """
    known = recipe.get(_CONTENT, {})
    there = sorted({*known} & {*dataset.labelled_identifiers()})
    now = image_hashes(dataset.paths.labelled, there)
    return [case for case in there if now[case] != known[case]]


def changed_since(dataset: SFRDataset, fold: Fold, adapter: Path) -> str:
    """What a fine-tuned SAM of round 0 was made with and is otherwise now, as ``sfr_finetune`` would refuse it.

    Args:
        dataset: as it is now; where there are several axes of slices, that of the SAM.
        fold: of the labelled cases.
        adapter: complete.

    Returns:
        the names, which are empty if nothing changed, or if that cannot be said: of an adapter that has no recipe, and
        without the preprocessed cases of the fold.
    """
    with contextlib.suppress(UserError):
        recipe = recipe_of(adapter)
        now = fine_tuning_recipe(dataset, fold, open_round(dataset, fold, 0))
        if recipe and not is_same_recipe(recipe, now):
            return changed_names(recipe, now)
    return ""


def changed_since_fine_tuning(dataset: SFRDataset, fold: Fold) -> str:
    """:func:`changed_since` of the first SAM of round 0 that it has something to say of; several axes have one each.

    Args:
        dataset: as it is now.
        fold: of the labelled cases.
    """
    adapters = zip(dataset.planes, adapter_files(dataset, fold, FINAL_ADAPTER), strict=True)
    found = (changed_since(plane, fold, adapter) for plane, adapter in adapters if adapter.is_file())
    return next(filter(None, found), "")


def is_same_recipe(before: str | None, now: str) -> bool:
    """Whether two recipes stand for the same run.

    Args:
        before: an earlier recipe, of any version; None where there is none.
        now: the present one.
    """
    there, here = _comparable(before, now)
    return there == here


def changed_names(before: str | None, now: str) -> str:
    """The names in which two recipes differ, as ``section.setting`` where there are sections.

    What follows from a setting stands in the recipe too, without a section; it counts if no section has changed.

    Args:
        before: an earlier recipe; None where there is none, from which everything differs.
        now: the present one.
    """
    there, here = _comparable(before, now)
    return ", ".join(_differences(_sections(there), _sections(here)) or _differences(there, here))


def _comparable(before: str | None, now: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both, with the content of those cases alone that both name: others differ as cases. Version 0.2.0 named none."""
    there, here = _read(before), _read(now)
    if before is not None:
        common = {*there.get(_CONTENT, {})} & {*here.get(_CONTENT, {})}
        for recipe in (there, here):
            recipe[_CONTENT] = {case: recipe[_CONTENT][case] for case in common}
    return there, here


def _read(recipe: str | None) -> dict[str, Any]:
    """Without what does not count: settings of SFR+ that fine-tuning does not read, which earlier versions wrote too,
    and where the file with the weights lies, whose content is known by its hash.
    """
    content: dict[str, Any] = json.loads(recipe or "{}")
    content.get("sam", {}).pop("checkpoint", None)
    if "rounds" in content:
        content["rounds"] = {name: content["rounds"].get(name) for name in FINE_TUNING_IN_ROUNDS}
    return content


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*there, *here} if there.get(name) != here.get(name))


def _sections(recipe: dict[str, Any]) -> dict[str, Any]:
    sections = {name: value for name, value in recipe.items() if isinstance(value, dict)}
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
