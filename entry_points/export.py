"""``sfr_export``: a trained model for machines that have nnU-Net alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .command_line import add_configuration, argument_parser, fold, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and export; returns the exit code."""
    parser = argument_parser(
        "sfr_export",
        "Write a trained model so that a machine with nnU-Net, and without this package, predicts with it.",
    )
    add_configuration(parser)
    parser.add_argument(
        "-f", dest="folds", type=fold, nargs="+", default=["all"], metavar="FOLD", help="folds to export"
    )
    parser.add_argument("-tr", dest="trainer", default="nnUNetTrainerSFR_MT", metavar="TRAINER", help="trainer's name")
    parser.add_argument(
        "-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="FILE", help="checkpoint to export"
    )
    parser.add_argument("--teacher", action="store_true", help="export the teacher's weights instead of the student's")
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder for nnUNetv2_predict_from_modelfolder, or a .zip for nnUNetv2_install_pretrained_model_from_zip",
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        from nnunet_sfr.dataset import open_dataset
        from nnunet_sfr.trainers.export import export_model

        dataset = open_dataset(arguments.dataset, arguments.configuration, arguments.plans)
        export_model(
            dataset.paths.model(arguments.trainer),
            arguments.folds,
            arguments.output,
            checkpoint=arguments.checkpoint,
            use_teacher=arguments.teacher,
        )
        print(f"exported to {arguments.output}")

    return run(command)
