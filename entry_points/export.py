"""``sfr_export``: a trained model for machines that have nnU-Net alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.paths import FINAL_CHECKPOINT
from nnunet_sfr.trainers.methods import DEFAULT_TRAINER

from .command_line import add_configuration, argument_parser, fold, open_named, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and export; returns the exit code."""
    parser = argument_parser(
        "sfr_export",
        "Write a trained model so that a machine with nnU-Net, and without this package, predicts with it.",
        examples={
            "-d 42 -o heart.zip": "there: nnUNetv2_install_pretrained_model_from_zip heart.zip",
            "-d 42 -tr nnUNetTrainerSFR_ACMT -o heart": "there: nnUNetv2_predict_from_modelfolder -m heart -f all",
            "-d 42 -f 0 1 2 3 4 --teacher -o heart.zip": "the teachers of five folds",
        },
    )
    add_configuration(parser)
    parser.add_argument(
        "-f", dest="folds", type=fold, nargs="+", default=["all"], metavar="FOLD", help="folds to export"
    )
    parser.add_argument("-tr", dest="trainer", default=DEFAULT_TRAINER, metavar="TRAINER", help="trainer of the model")
    parser.add_argument(
        "-chk", dest="checkpoint", default=FINAL_CHECKPOINT, metavar="FILE", help="checkpoint to export"
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
    card = parser.add_argument_group("the model's card, README.md beside the weights")
    card.add_argument(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="JSON file that sfr_evaluate wrote of this model's predictions, whose metrics go into the card; default: "
        "no metrics",
    )
    card.add_argument(
        "--case-names",
        action="store_true",
        help="list the cases that the model was trained on, and keep those that dataset.json names; default: their "
        "number alone",
    )
    card.add_argument(
        "--licence",
        metavar="ID",
        help="licence of the model as model hubs name it, cc-by-4.0 for example; default: none is named",
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        dataset = open_named(arguments)

        from nnunet_sfr.atomic import require_writable
        from nnunet_sfr.trainers.export import export_model, require_model
        from nnunet_sfr.trainers.model_card import model_card
        from nnunet_sfr.trainers.model_facts import read_model_facts

        require_writable(arguments.output.parent)
        model_folder = dataset.paths.model(arguments.trainer)
        require_model(model_folder)
        facts = read_model_facts(
            dataset,
            model_folder,
            arguments.folds,
            checkpoint=arguments.checkpoint,
            use_teacher=arguments.teacher,
            evaluation=arguments.evaluation,
        )
        export_model(
            model_folder,
            arguments.folds,
            arguments.output,
            checkpoint=arguments.checkpoint,
            use_teacher=arguments.teacher,
            with_case_names=arguments.case_names,
            card=model_card(facts, with_case_names=arguments.case_names, licence=arguments.licence),
        )
        print(f"exported to {arguments.output}")

    return run(command)
