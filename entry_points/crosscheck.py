"""``sfr_crosscheck``: how good will SAM's labels be?"""

from __future__ import annotations

import os
from collections.abc import Sequence

from nnunet_sfr.cores import choose_processes

from .command_line import add_configuration, add_device, add_with_nnunet, argument_parser, open_named, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and cross-check; returns the exit code."""
    parser = argument_parser(
        "sfr_crosscheck",
        "Fine-tune SAM leaving out labelled cases (each once, in at most five fine-tunings), label them, and print the "
        "Dice of every class with its interval, how well each measure of confidence ranks the cases, and whether SFR "
        "is likely to help. Needs two labelled cases. Where SAM has labelled the unlabelled cases, their Dice is "
        "estimated too. An interrupted run continues.",
        examples={
            "-d 42": "after sfr_plan_and_preprocess",
            "-d 42 --with-nnunet": "compare with a short training of plain nnU-Net",
            "-d 42 -p nnUNetPlansCPU -device cpu": "without a GPU",
        },
    )
    add_configuration(parser)
    add_device(parser)
    add_with_nnunet(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="fine-tune and train again, after labelled cases changed"
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        dataset = open_named(arguments)
        choice = choose_processes(os.environ) if arguments.with_nnunet else ""
        if choice:
            print(choice)

        from nnunet_sfr.crosscheck.printing import lines
        from nnunet_sfr.crosscheck.run import crosscheck
        from nnunet_sfr.devices import resolve_device

        findings = crosscheck(
            dataset,
            resolve_device(arguments.device),
            with_nnunet=arguments.with_nnunet,
            overwrite=arguments.overwrite,
        )
        print("\n".join(lines(findings)))
        print(f"all numbers are in {dataset.paths.crosscheck_result}")

    return run(command)
