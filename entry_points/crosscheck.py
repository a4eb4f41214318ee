"""``sfr_crosscheck``: how good will SAM's labels be?"""

from __future__ import annotations

from collections.abc import Sequence

from .command_line import add_configuration, add_device, argument_parser, open_named, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and cross-check; returns the exit code."""
    parser = argument_parser(
        "sfr_crosscheck",
        "Fine-tune SAM leaving out labelled cases (each once, in at most five fine-tunings), label them, and print the "
        "Dice of every class with its interval, how well each measure of confidence ranks the cases, and whether SFR "
        "is likely to help. Needs two labelled cases. Where SAM has labelled the unlabelled cases, their Dice is "
        "estimated too. An interrupted run continues.",
        examples={"-d 42": "after sfr_plan_and_preprocess", "-d 42 -p nnUNetPlansCPU -device cpu": "without a GPU"},
    )
    add_configuration(parser)
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="fine-tune again, after labelled cases changed")
    arguments = parser.parse_args(argv)

    def command() -> None:
        dataset = open_named(arguments)

        from nnunet_sfr.crosscheck.run import crosscheck, lines
        from nnunet_sfr.devices import resolve_device

        findings = crosscheck(dataset, resolve_device(arguments.device), overwrite=arguments.overwrite)
        print("\n".join(lines(findings)))
        print(f"all numbers are in {dataset.paths.crosscheck_result}")

    return run(command)
