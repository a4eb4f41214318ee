"""The examples that a round of fine-tuning draws from, for one process or several."""

from __future__ import annotations

from accelerate import Accelerator
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

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

    Views that are missing are embedded first, shared out among the processes; prompts of prototypes are collected.

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
    maker = ViewMaker(
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
    with accelerator.main_process_first():
        maker.prepare()
    part, parts = accelerator.process_index, accelerator.num_processes
    counts = maker.make(part=part, parts=parts)
    accelerator.wait_for_everyone()
    prompts = model.sam.prompts
    if isinstance(prompts, PrototypePrompts) and not prompts.has_prototypes:
        prompts.collect(maker.unaugmented(), dataset.num_classes, ignore_index=IGNORE_INDEX)
    views = EmbeddedViews(
        maker.store,
        counts,
        this_round.sampling_probabilities,
        batch_size=this_round.settings.batch_size,
        part=part,
        parts=parts,
    )
    return ViewExamples(views)
