"""``sfr_pseudolabel``: label the unlabelled cases with the fine-tuned SAM, a trained model, or label maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .command_line import (
    add_configuration,
    add_device,
    add_fold,
    add_round,
    argument_parser,
    fold,
    is_same_folder,
    open_named,
    positive_number,
    run,
    whole_number,
)

if TYPE_CHECKING:
    from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
    from nnunet_sfr.dataset import SFRDataset


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and label; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)

    def command() -> None:
        from nnunet_sfr.atomic import require_writable

        if arguments.export is not None:
            require_writable(arguments.export)
        dataset = open_named(arguments)
        if arguments.export is not None:
            dataset.paths.refuse_raw_folder(arguments.export, "--export")

        from nnunet_sfr.data.export import export_pseudo_labels
        from nnunet_sfr.labelling.summary import warn_of_emptiness

        store = _label(dataset, arguments)
        if arguments.export is not None:
            export_pseudo_labels(store, dataset, arguments.export)
            print(f"the label maps on the original grid are in {arguments.export}")
        print(f"the pseudo-labels are in {store.folder}")
        warn_of_emptiness(store, dataset.class_names)

    return run(command)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "sfr_pseudolabel",
        "Label the unlabelled cases, into the store that the trainers read: with the fine-tuned SAM, or instead of it "
        "with a trained nnU-Net model (--from-model) or with label maps of any origin (--from-images). Cases that are "
        "there already are skipped. For SFR+ see --round and -tr.",
        examples={
            "-d 42": "with SAM, after sfr_finetune",
            "-d 42 --export label_maps": "and as images on the original grid",
            "-d 42 --from-model Dataset007_Other/nnUNetTrainer__nnUNetPlans__3d_fullres": "with a trained model",
            "-d 42 --from-images label_maps": "<case>.nii.gz for every unlabelled case",
            "-d 42 --round 1 -tr nnUNetTrainerSFR_MT": "SFR+: the trained model labels the pool, for sfr_select",
            "-d 42 --round 1": "SFR+: SAM labels it again, after sfr_finetune --round 1",
        },
    )
    add_configuration(parser)
    add_fold(parser)
    add_device(parser)
    add_round(parser, "whose SAM labels the pool again; with -tr, the model labels it for sfr_select")
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "--from-model",
        type=Path,
        metavar="FOLDER",
        help="predict with the trained nnU-Net model in this folder (<Trainer>__<Plans>__<configuration>, of any data "
        "set with the same labels and channels) instead of SAM, from the images in imagesUl; the SFR plan's section "
        "pseudo_labels (tile_step_size, use_mirroring) holds here too",
    )
    sources.add_argument(
        "--from-images",
        type=Path,
        metavar="FOLDER",
        help="take the label maps in this folder instead: one for every unlabelled case, called <case> and the data "
        "set's file ending, on the grid of the original image, with the data set's label values. All are checked "
        "before the first is taken; a file that changes is taken again",
    )
    sources.add_argument(
        "-tr",
        dest="trainer",
        metavar="TRAINER",
        help="with --round 1 or later: predict with the model that this trainer trained in the round before; "
        "sfr_select reads how sure it is, and sfr_finetune learns from its labels of the cases that it is sure of",
    )
    parser.add_argument("-chk", choices=("final", "best"), help="which adapter of sfr_finetune to use; default: final")
    parser.add_argument(
        "--model-folds",
        type=fold,
        nargs="+",
        metavar="FOLD",
        help="with --from-model: folds of the model, whose logits are averaged; default: all that have the checkpoint",
    )
    parser.add_argument(
        "--model-checkpoint",
        metavar="FILE",
        help="with --from-model: checkpoint of each fold; default: checkpoint_final.pth",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="with --from-model or -tr: load the model although its checkpoint or plan needs more than nnU-Net's own "
        "types. Such files can run any code: only for models whose makers you know",
    )
    parser.add_argument(
        "-num_parts", type=positive_number, default=1, metavar="N", help="share the cases between this many calls"
    )
    parser.add_argument(
        "-part_id", type=whole_number, default=0, metavar="I", help="which share this call takes, from 0"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="label every case again; the labels that are there stay until all new ones are, which lie in .new beside "
        "them until then",
    )
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="also write the label maps on the original grid into this folder"
    )
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what argparse itself lets pass."""
    if arguments.part_id >= arguments.num_parts:
        parser.error(f"-part_id must lie between 0 and -num_parts - 1, got {arguments.part_id}")
    _check_options_of_sources(parser, arguments)
    if arguments.trainer is not None and arguments.round == 0:
        parser.error("-tr labels the pool for a round of SFR+; add --round 1, or use --from-model")
    if arguments.round > 0 and (arguments.from_model or arguments.from_images):
        parser.error("--from-model and --from-images fill the store of round 0; later rounds are SAM's, or -tr's")
    if arguments.device != "auto" and arguments.from_images:
        parser.error("-device does not go with --from-images, which computes nothing")
    if is_same_folder(arguments.export, arguments.from_images):
        parser.error("--export would overwrite the label maps of --from-images; choose another folder")


def _check_options_of_sources(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that belong to another source than the one that was chosen."""
    if arguments.from_model is None:
        for name in ("model_folds", "model_checkpoint"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name.replace('_', '-')} goes with --from-model only")
    if arguments.trust and not (arguments.from_model or arguments.trainer):
        parser.error("--trust goes with --from-model and -tr, which load a model")
    if arguments.chk is not None and (arguments.from_model or arguments.from_images or arguments.trainer):
        parser.error("-chk chooses an adapter of SAM; it goes with neither --from-model nor --from-images nor -tr")


def _label(dataset: SFRDataset, arguments: argparse.Namespace) -> PseudoLabelStore:
    # importing torch takes seconds, which -h should not
    from nnunet_sfr.devices import resolve_device
    from nnunet_sfr.labelling.filling import CasePartition
    from nnunet_sfr.labelling.from_images import label_from_images
    from nnunet_sfr.labelling.from_model import CHECKPOINT, label_from_model
    from nnunet_sfr.labelling.from_retraining import label_from_retraining
    from nnunet_sfr.paths import BEST_ADAPTER, FINAL_ADAPTER
    from nnunet_sfr.sam_stage.pseudo_labelling import pseudo_label

    partition = CasePartition(arguments.num_parts, arguments.part_id, arguments.overwrite)
    if arguments.from_images is not None:
        return label_from_images(dataset, arguments.fold, folder=arguments.from_images, partition=partition)
    device = resolve_device(arguments.device)
    if arguments.from_model is not None:
        return label_from_model(
            dataset,
            arguments.fold,
            device,
            model_folder=arguments.from_model,
            model_folds=arguments.model_folds,
            checkpoint=arguments.model_checkpoint or CHECKPOINT,
            trust=arguments.trust,
            partition=partition,
        )
    if arguments.trainer is not None:
        return label_from_retraining(
            dataset,
            arguments.fold,
            device,
            trainer=arguments.trainer,
            round_index=arguments.round,
            trust=arguments.trust,
            partition=partition,
        )
    adapter = BEST_ADAPTER if arguments.chk == "best" else FINAL_ADAPTER
    return pseudo_label(
        dataset, arguments.fold, device, adapter=adapter, round_index=arguments.round, partition=partition
    )
