"""The tables of the report: rounds side by side, the settings beside those of planning, and what made what."""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from nnunet_sfr import __version__
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.planner_names import is_made_for_gpu
from nnunet_sfr.planning.requested_sam import RequestedSAM
from nnunet_sfr.planning.sfr_plan import make_sfr_plan
from nnunet_sfr.report.contents import LabelClass, SourceResult, Table
from nnunet_sfr.report.label_sources import MAIN, RETRAINED_MODEL, LabelSource, Pool
from nnunet_sfr.sam_models import DEFAULT_MODEL, find_model

NOTHING = "-"
UNKNOWN = "unknown"
"""What planning gives, where it cannot be computed."""
SETTINGS_COLUMNS = ("setting", "value", "planned")
HASH_DIGITS = 8
LIBRARIES = ("nnunetv2", "torch", "numpy")

Results = Mapping[str, Mapping[str, SourceResult]]
"""What every source found, by case and key of the source."""


def rounds_table(pool: Pool, results: Results, classes: Sequence[LabelClass]) -> Table | None:
    """One column a round; None where there is only what the trainers read in round 0.

    Args:
        pool: sources and selections.
        results: what every source found.
        classes: whose volumes are compared.
    """
    by_round: dict[int, dict[str, LabelSource]] = {}
    for source in pool.sources:
        if source.kind in (RETRAINED_MODEL, MAIN):
            by_round.setdefault(source.round_index, {})[source.kind] = source
    rounds = sorted(by_round)
    columns = []
    for index in rounds:
        model, main = by_round[index].get(RETRAINED_MODEL), by_round[index].get(MAIN)
        cells = {"trainer whose model labelled the pool": NOTHING if model is None else _maker(model)}
        cells |= _statistics("model", model, results, classes)
        cells |= _choice(pool, index)
        cells["maker of the new labels"] = NOTHING if main is None else _maker(main)
        cells |= _statistics("new labels", main, results, classes)
        columns.append(cells)
    rows = [[name, *(cells[name] for cells in columns)] for name in columns[0]] if columns else []
    rows = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
    return Table("Rounds", ["", *(f"round {index}" for index in rounds)], rows) if len(rounds) > 1 else None


def _maker(source: LabelSource) -> str:
    made_by = source.made_by
    if made_by.is_sam:
        return f"SAM, adapter {str(made_by.adapter_sha256)[:HASH_DIGITS]}"
    return made_by.trainer or made_by.source


def _choice(pool: Pool, round_index: int) -> dict[str, str]:
    selection = pool.selections.get(round_index)
    if selection is None:
        return {"high / low": NOTHING, "threshold": NOTHING, "overruled": NOTHING}
    threshold = selection.rule.get("value_of_least_sure_high_case")
    overruled = sum(len(cases) for cases in selection.overruled.values())
    return {
        "high / low": f"{len(selection.high)} / {len(selection.low)}",
        "threshold": NOTHING
        if threshold is None
        else f"{threshold:.3f} ({selection.rule['confidence']} of {selection.rule['confidence_of']})",
        "overruled": str(overruled),
    }


def _statistics(
    who: str, source: LabelSource | None, results: Results, classes: Sequence[LabelClass]
) -> dict[str, str]:
    """What a source found in the pool on average."""
    shown = [] if source is None else [by_key[source.key] for by_key in results.values() if source.key in by_key]
    known = [result.confidence for result in shown if result.confidence is not None]
    records = [] if source is None else list(source.records.values())
    before = [value for record in records if (value := record.get("previous_round_agreement")) is not None]
    cells = {
        f"{who}: confidence": source.measure if source is not None and known else NOTHING,
        f"{who}: mean / median confidence": f"{statistics.fmean(known):.3f} / {statistics.median(known):.3f}"
        if known
        else NOTHING,
        f"{who}: agreement with the round before": f"{statistics.fmean(before):.3f}" if before else NOTHING,
    }
    for label in classes:
        volumes = [result.volumes_ml.get(str(label.value), 0.0) for result in shown]
        cells[f"{who}: mean volume of {label.name}"] = f"{statistics.fmean(volumes):.1f} ml" if volumes else NOTHING
    empty = sum(not any(result.volumes_ml.values()) for result in shown)
    cells[f"{who}: empty label maps"] = f"{empty} of {len(shown)}" if shown else NOTHING
    return cells


def settings_tables(dataset: SFRDataset) -> list[Table]:
    """Every section of the SFR plan: name, value, and what planning gives this data set unless told otherwise.

    A value that differs was edited in the file or asked for with an option of planning.
    """
    planned = _planned_settings(dataset)
    tables = []
    for section in dataclasses.fields(dataset.settings):
        values = getattr(dataset.settings, section.name)
        if not dataclasses.is_dataclass(values):
            continue  # derived_from, which is no setting
        known = None if planned is None else planned[section.name]
        tables.append(Table(section.name, SETTINGS_COLUMNS, _setting_rows(values, known)))
    return tables


def settings_mark(dataset: SFRDataset) -> str:
    """What is said of a setting that is not as planned: another version may have planned by other rules."""
    content = read_json(dataset.paths.sfr_plans_file, "run sfr_plan_and_preprocess")
    if content.get("nnunet_sfr_version") == __version__:
        return "edited"
    return f"edited, or planned by nnunet_sfr {content.get('nnunet_sfr_version', UNKNOWN)}"


def _setting_rows(values: Any, planned: Mapping[str, Any] | None, prefix: str = "") -> list[list[str]]:
    """Name, value and planned value of every setting; those of a subsection have its name in front."""
    rows: list[list[str]] = []
    for setting in dataclasses.fields(values):
        value = getattr(values, setting.name)
        known = None if planned is None else planned[setting.name]
        if dataclasses.is_dataclass(value):
            rows += _setting_rows(value, known, f"{prefix}{setting.name}.")
        else:
            rows.append([prefix + setting.name, _json(value), UNKNOWN if planned is None else _json(known)])
    return rows


def _planned_settings(dataset: SFRDataset) -> dict[str, Any] | None:
    """By section and name, what planning makes of nnU-Net's plan as it is; None without the fingerprint that it needs.

    Mosaic and schedule are those for the SAM that is in use; the SAM itself is compared with the default one.
    """
    used = dataset.settings.sam
    wanted = RequestedSAM(used.model, used.adaptation, used.checkpoint)
    try:
        fresh = make_sfr_plan(
            dataset.plans_manager, dataset.paths.configuration, read_fingerprint(dataset.paths.fingerprint_file), wanted
        ).to_dict()
    except (UserError, KeyError):  # nnU-Net's own planning made it, or it was not copied with the rest
        return None
    planned = find_model(used.model).planned_adaptation(for_gpu=is_made_for_gpu(dataset.plans_manager.plans))
    fresh["sam"] |= {"model": DEFAULT_MODEL, "adaptation": planned, "checkpoint": None}
    return fresh


def _json(value: object) -> str:
    return json.dumps(value)


def versions_table(sources: Sequence[LabelSource], created: str) -> Table:
    """Who made each store, by version and hashes, and what made the page.

    Args:
        sources: that the page shows.
        created: date and time of the page.
    """
    rows = []
    for source in sources:
        rows.append([source.name, f"nnunet_sfr {source.store.version or NOTHING}; {_hashes(source.made_by)}"])
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    rows.append(["this page", f"nnunet_sfr {__version__}, {libraries}, Python {platform.python_version()}; {created}"])
    return Table("Versions", ["what", "made by"], rows)


def _hashes(made_by: Provenance) -> str:
    """Names and hashes that a manifest has of its maker."""
    parts = [f"source {made_by.source}"]
    if made_by.adapter_sha256:
        parts.append(f"{made_by.adapter} {made_by.adapter_sha256}")
    if "sam" in made_by.settings:
        sam = made_by.settings["sam"]
        parts.append(f"SAM {sam.get('model', NOTHING)}, {sam.get('adaptation', NOTHING)}")
    if made_by.trainer:
        parts.append(made_by.trainer)
    parts += [f"{fold}/{file} {digest}" for fold, (file, digest) in (made_by.checkpoints or {}).items()]
    if made_by.weights_sha256:
        parts.append(f"weights {made_by.weights_sha256} after epoch {made_by.epoch}")
    return "; ".join(parts)
