"""The examples that a round of fine-tuning draws from, for one process or several."""

from __future__ import annotations

from collections.abc import Iterator

from accelerate import Accelerator
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.sam_stage.adaptation import encoder_is_frozen
from nnunet_sfr.sam_stage.embedding import EmbeddedViews, ViewMaker
from nnunet_sfr.sam_stage.examples import Examples, PatchExamples, ViewExamples
from nnunet_sfr.sam_stage.intensities import CasesWithIntensities, intensities_of
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX
from nnunet_sfr.sam_stage.layers.prototypes import PrototypePrompts
from nnunet_sfr.sam_stage.model import for_inference, weights_identity
from nnunet_sfr.sam_stage.patches import labelled_patches
from nnunet_sfr.sam_stage.rounds import Round
from nnunet_sfr.sam_stage.sam import StitchedSAM


def examples_of_round(dataset: SFRDataset, this_round: Round, model: StitchedSAM, accelerator: Accelerator) -> Examples:
    """Embedded views where the encoder stays as it is, else augmented patches.

    Views that are missing are embedded first, shared out among the processes. Prototypes are collected in the first
    round, later ones keep them.

    Args:
        dataset: planned and preprocessed.
        this_round: its cases and settings.
        model: that is fine-tuned.
        accelerator: tells which of several processes this is.

    Raises:
        UserError: the views cannot be made or read.
    """
    cases = CasesWithIntensities(this_round.cases, intensities_of(dataset))
    settings = this_round.settings
    if encoder_is_frozen(model.sam):
        return _view_examples(dataset, this_round, cases, model, accelerator)
    if _needs_prototypes(this_round, model):
        # The first layer is trained for these channels, and the embeddings change with it. It starts as the published
        # one on the mean of the channels, so that regions stand apart from the first step on, and the projection of the
        # prototypes is trained along with it. (Collected again later, prompts would change under the decoder.)
        maker = _view_maker(dataset, this_round, cases, model, accelerator)
        _collect_prototypes(dataset, model, maker.embed_unaugmented())
    draw_differently(settings.seed, accelerator)
    batches = labelled_patches(
        dataset,
        cases,
        batch_size=settings.batch_size // accelerator.num_processes,
        sampling_probabilities=this_round.sampling_probabilities,
        processes=get_allowed_n_proc_DA(),
        pin_memory=accelerator.device.type == "cuda",
    )
    return PatchExamples(dataset, batches, model)


def draw_differently(seed: int, accelerator: Accelerator) -> None:
    """Seed each of several processes apart, so that they augment other patches.

    Args:
        seed: of the first process.
        accelerator: tells which process this is; with one, nothing changes.
    """
    if accelerator.num_processes > 1:
        seed_everything(seed + accelerator.process_index * 2**16)


def _view_examples(
    dataset: SFRDataset, this_round: Round, cases: CasesWithIntensities, model: StitchedSAM, accelerator: Accelerator
) -> Examples:
    maker = _view_maker(dataset, this_round, cases, model, accelerator)
    with accelerator.main_process_first():
        maker.prepare()
    part, parts = accelerator.process_index, accelerator.num_processes
    counts = maker.make(part=part, parts=parts)
    accelerator.wait_for_everyone()
    if _needs_prototypes(this_round, model):
        _collect_prototypes(dataset, model, maker.unaugmented())
    views = EmbeddedViews(
        maker.store,
        counts,
        this_round.sampling_probabilities,
        batch_size=this_round.settings.batch_size,
        part=part,
        parts=parts,
    )
    return ViewExamples(views)


def _view_maker(
    dataset: SFRDataset, this_round: Round, cases: CasesWithIntensities, model: StitchedSAM, accelerator: Accelerator
) -> ViewMaker:
    return ViewMaker(
        dataset,
        cases,
        dataset.settings.fine_tuning,
        for_inference(model).sam.encoder_of_images(),
        model.geometry,
        accelerator.device,
        weights=weights_identity(dataset),
        folder_of={
            case: this_round.view_folder(case, model.geometry.slice_axis) for case in this_round.cases.identifiers
        },
        sampling_probabilities=this_round.sampling_probabilities,
        draws=this_round.settings.iterations * this_round.settings.batch_size,
    )


def _needs_prototypes(this_round: Round, model: StitchedSAM) -> bool:
    """Whether SAM has to be given prototypes.

    A later round continues with what the one before had: none, where an earlier version of this package fine-tuned SAM
    with a first layer that is trained.
    """
    return this_round.previous is None and isinstance(model.sam.prompts, PrototypePrompts)


def _collect_prototypes(dataset: SFRDataset, model: StitchedSAM, embedded: Iterator[tuple[Tensor, Tensor]]) -> None:
    """From embeddings [dim, h, w] and targets [S, S]; every process computes all of them, so that all have the same."""
    assert isinstance(model.sam.prompts, PrototypePrompts)
    model.sam.prompts.collect(embedded, dataset.num_classes, ignore_index=IGNORE_INDEX)
