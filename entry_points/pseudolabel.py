"""``sfr_pseudolabel``: label the unlabelled cases with the fine-tuned SAM."""

from __future__ import annotations

from pathlib import Path

from .command_line import add_configuration, add_device, add_fold, argument_parser, run


def main() -> int:
    """Parse the command line and label; returns the exit code."""
    parser = argument_parser(
        "sfr_pseudolabel",
        "Label the unlabelled cases with the fine-tuned SAM, into the store that the trainers read. Cases that are "
        "there already are skipped.",
    )
    add_configuration(parser)
    add_fold(parser)
    add_device(parser)
    parser.add_argument("-chk", choices=("final", "best"), default="final", help="which adapter of sfr_finetune to use")
    parser.add_argument("-num_parts", type=int, default=1, help="share the cases between this many calls")
    parser.add_argument("-part_id", type=int, default=0, help="which share this call takes, from 0")
    parser.add_argument("--overwrite", action="store_true", help="delete the store and label every case anew")
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="also write the label maps on the original grid into this folder"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.part_id < arguments.num_parts:
        parser.error(f"-part_id must lie between 0 and -num_parts - 1, got {arguments.part_id}")

    def command() -> None:
        from nnunet_sfr.data.export import export_pseudo_labels
        from nnunet_sfr.dataset import open_dataset
        from nnunet_sfr.devices import resolve_device
        from nnunet_sfr.sam_stage.model import BEST_ADAPTER, FINAL_ADAPTER
        from nnunet_sfr.sam_stage.pseudo_labelling import pseudo_label

        dataset = open_dataset(arguments.dataset, arguments.configuration, arguments.plans)
        store = pseudo_label(
            dataset,
            arguments.fold,
            resolve_device(arguments.device),
            adapter=BEST_ADAPTER if arguments.chk == "best" else FINAL_ADAPTER,
            num_parts=arguments.num_parts,
            part_id=arguments.part_id,
            overwrite=arguments.overwrite,
        )
        if arguments.export is not None:
            export_pseudo_labels(store, dataset, arguments.export)
        print(f"the pseudo-labels are in {store.folder}")

    return run(command)
