"""``sfr_finetune``: fine-tune SAM on the labelled cases."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nnunet_sfr.paths import FINAL_ADAPTER

from .command_line import add_configuration, add_device, add_fold, add_round, argument_parser, open_named, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and fine-tune; returns the exit code."""
    parser = argument_parser(
        "sfr_finetune",
        "Fine-tune SAM on stitched labelled patches. An interrupted run continues where it saved its state last.",
        examples={
            "-d 42": "SFR, with all labelled cases",
            "-d 42 -f 0": "with the training cases of fold 0",
            "-d 42 --round 1": "SFR+, after sfr_select --round 1",
        },
    )
    add_configuration(parser)
    add_fold(parser)
    add_device(parser)
    add_round(parser, "continues from the round before, with the labelled cases and those that sfr_select found sure")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start again; an earlier run stays until the new one is complete, which lies in .new beside it until then",
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        dataset = open_named(arguments)

        from nnunet_sfr.devices import resolve_device
        from nnunet_sfr.sam_stage.finetuning import fine_tune
        from nnunet_sfr.sam_stage.lighter_sam import slow_on_cpu

        device = resolve_device(arguments.device)
        complete = (dataset.paths.sam_stage(arguments.fold, arguments.round) / FINAL_ADAPTER).is_file()
        learns = arguments.overwrite or not complete
        sam = dataset.settings.sam
        slow = slow_on_cpu(sam, dataset.num_input_channels) if learns and device.type == "cpu" else None
        if slow is not None:
            print(f"{sam.model} with {sam.adaptation} is slow on a CPU{slow.sentence_end}", file=sys.stderr)
        folder = fine_tune(dataset, arguments.fold, device, round_index=arguments.round, overwrite=arguments.overwrite)
        print(f"the fine-tuned SAM is in {folder}")

    return run(command)


if __name__ == "__main__":  # torchrun and accelerate launch start modules
    raise SystemExit(main())
