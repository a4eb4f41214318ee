"""What one fine-tuning run learns from and where it starts: round 0 is SFR, later rounds are SFR+'s.

A later round resumes from the adapter and the optimiser of the round before, with the labelled cases and those of high
confidence, which carry the re-trained model's labels (docs/method.md, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nnunet_sfr.data.datasets import (
    JoinedDataset,
    LabelledDataset,
    LoadableCases,
    PseudoLabelledDataset,
    UnlabelledDataset,
)
from nnunet_sfr.data.preprocessed_grid import check_grids
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import FINAL_ADAPTER, FINAL_OPTIMIZER, Fold, fold_name
from nnunet_sfr.sam_stage.model import load_adapter, recipe_of
from nnunet_sfr.sam_stage.sam import StitchedSAM
from nnunet_sfr.selection import read_selection
from nnunet_sfr.settings import FINE_TUNING_IN_ROUNDS, FineTuningSettings
from nnunet_sfr.torch_files import read_state


@dataclass(frozen=True)
class Round:
    """One fine-tuning run, before it starts.

    Args:
        settings: of fine-tuning, with the length and the seed of this round.
        cases: to draw patches from.
        sampling_probabilities: of each of them; None for equal ones.
        previous: folder with adapter and optimiser to continue from; None for a fresh SAM.
        recipe: what a resumed run must share with this one, on top of the settings; JSON types.
        fold: whose round it is.
        labelled: the cases with true labels; the others have a model's.
    """

    settings: FineTuningSettings
    cases: LoadableCases
    sampling_probabilities: Sequence[float] | None = None
    previous: Path | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    fold: Fold = "all"
    labelled: frozenset[str] = frozenset()

    def view_folder(self, case: str, slice_axis: int) -> str:
        """Where the embedded views of a case across one axis lie: folds share those of labelled cases, but a model's
        labels are a fold's own.

        Args:
            case: identifier.
            slice_axis: across which the views were cut into slices.
        """
        owner = "labelled" if case in self.labelled else fold_name(self.fold)
        return f"{owner}/{case}/across_{slice_axis}"


def open_round(dataset: SFRDataset, fold: Fold, round_index: int) -> Round:
    """Find out what a round learns from.

    Args:
        dataset: planned and preprocessed.
        fold: of the labelled cases.
        round_index: 0 for SFR, from 1 on for SFR+.

    Raises:
        UserError: the labelled cases are not there, or for a later round: the previous one is not complete, there is
            no selection, or the model's labels changed since it was made.
    """
    training, _ = dataset.split(fold)
    labelled = LabelledDataset(str(dataset.paths.labelled), training)
    check_grids(labelled, dataset.plans_manager, dataset.configuration_manager)
    if round_index == 0:
        return Round(dataset.settings.fine_tuning, labelled, fold=fold, labelled=frozenset(training))
    return _later_round(dataset, fold, round_index, labelled)


def _later_round(dataset: SFRDataset, fold: Fold, round_index: int, labelled: LoadableCases) -> Round:
    paths, settings = dataset.paths, dataset.settings
    previous = paths.sam_stage(fold, round_index - 1)
    if not (previous / FINAL_ADAPTER).is_file():
        before = f" --round {round_index - 1}" if round_index > 1 else ""
        raise UserError(f"{previous / FINAL_ADAPTER}: not found; run sfr_finetune{before} first")
    pool = UnlabelledDataset(paths.unlabelled).identifiers
    selection = read_selection(paths.selection(fold, round_index), pool)
    store = PseudoLabelStore.open(paths.model_pseudo_labels(fold, round_index), grid=dataset.grid)
    if not selection.is_of(store):
        raise UserError(
            f"{paths.selection(fold, round_index)}: the model's labels in {store.folder} were made again since; run "
            f"sfr_select --round {round_index} again"
        )
    cases: LoadableCases = labelled
    probabilities = None
    if selection.high:
        high = PseudoLabelledDataset(paths.unlabelled, store, list(selection.high))
        check_grids(high, dataset.plans_manager, dataset.configuration_manager)
        cases = JoinedDataset(labelled, high)
        probabilities = sampling_probabilities(
            len(labelled.identifiers), len(high.identifiers), settings.rounds.labelled_fraction
        )
    return Round(
        settings=round_settings(settings.fine_tuning, settings.rounds.fine_tuning_fraction, round_index),
        cases=cases,
        sampling_probabilities=probabilities,
        previous=previous,
        recipe={
            "round": round_index,
            "previous_adapter_sha256": file_hash(previous / FINAL_ADAPTER),
            "high": list(selection.high),
            "labels_of_high": dict(selection.model),
            "rounds": {name: getattr(settings.rounds, name) for name in FINE_TUNING_IN_ROUNDS},
        },
        fold=fold,
        labelled=frozenset(labelled.identifiers),
    )


def round_settings(settings: FineTuningSettings, fraction: float, round_index: int) -> FineTuningSettings:
    """Fine-tuning settings of a later round: shorter, warm-up too, and with other random patches.

    Args:
        settings: of round 0.
        fraction: of its iterations that a later round has.
        round_index: from 1 on.
    """
    iterations = max(1, round(fraction * settings.iterations))
    return replace(
        settings,
        iterations=iterations,
        seed=settings.seed + round_index,
    )


def sampling_probabilities(num_labelled: int, num_high: int, labelled_fraction: float) -> list[float]:
    """The chance of each case: the labelled ones share ``labelled_fraction``, those of high confidence the rest.

    Args:
        num_labelled: labelled cases.
        num_high: cases of high confidence.
        labelled_fraction: of all draws that go to labelled cases.

    Returns:
        one probability for each case, the labelled ones first; they add up to 1.
    """
    return [labelled_fraction / num_labelled] * num_labelled + [(1 - labelled_fraction) / num_high] * num_high


def continue_from(previous: Path, model: StitchedSAM, optimizer: torch.optim.Optimizer, dataset: SFRDataset) -> None:
    """Load the adapter and the optimiser's moments that a finished run left.

    Args:
        previous: folder of the finished run.
        model: changed in place.
        optimizer: changed in place.
        dataset: whose settings the adapter has to fit and the optimiser takes.

    Raises:
        UserError: they are not there, damaged, or do not belong together.
    """
    load_adapter(model, dataset, previous / FINAL_ADAPTER)
    file = previous / FINAL_OPTIMIZER
    remedy = "run sfr_finetune --overwrite for that round"
    if not file.is_file():
        raise UserError(f"{file}: not found; {remedy}")
    state = read_state(file, remedy)
    if state.get("recipe") != recipe_of(previous / FINAL_ADAPTER):
        raise UserError(f"{file}: belongs to another run than the adapter beside it; {remedy}")
    optimizer.load_state_dict(state["optimizer"])
    settings = dataset.settings.fine_tuning
    for group in optimizer.param_groups:
        # which the state has as they were in the round before; the learning rate is set in every step
        group.update(betas=settings.betas, weight_decay=settings.weight_decay)
