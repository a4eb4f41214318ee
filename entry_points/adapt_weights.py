"""``sfr_adapt_weights``: weights of a pre-training in the shape of a plan's network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .command_line import add_configuration, argument_parser, open_named, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and write the file; returns the exit code."""
    parser = argument_parser(
        "sfr_adapt_weights",
        "Make a file for nnUNetv2_train -pretrained_weights from a checkpoint of nnssl (OpenMind) or nnU-Net that does "
        "not have every weight of the planned network: what fits is taken, weights of one input channel are repeated "
        "for several, and the rest is as nnU-Net initialises it.",
        examples={
            "-d 42 -i openmind.pth -o start.pth": "then nnUNetv2_train ... -pretrained_weights start.pth",
            "-d 42 -p nnUNetResEncUNetLPlans -i openmind.pth -o start.pth": "for the network of other plans",
        },
    )
    add_configuration(parser)
    parser.add_argument("-i", dest="checkpoint", type=Path, required=True, metavar="FILE", help="the checkpoint")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE", help="the file to write (.pth)")
    arguments = parser.parse_args(argv)
    if arguments.checkpoint.resolve() == arguments.output.resolve():
        parser.error("-o must be another file than -i, which would be overwritten")

    def command() -> None:
        dataset = open_named(arguments)

        from nnunet_sfr.atomic import require_writable
        from nnunet_sfr.trainers.pretrained_weights import write_adapted_weights

        require_writable(arguments.output.parent)
        adapted = write_adapted_weights(dataset, arguments.checkpoint, arguments.output)
        print(
            f"{arguments.output}: {len(adapted.taken)} tensors taken, {len(adapted.repeated)} repeated for the input "
            f"channels, {len(adapted.kept)} as nnU-Net initialises them; train with -pretrained_weights "
            f"{arguments.output}"
        )

    return run(command)
