"""``sfr_doctor``: what would stop or falsify a run, said before it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_sfr.doctor.findings import Level, Section, count

from .command_line import add_configuration, add_device, add_fold, argument_parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, examine and report; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.dataset is None:
        of_dataset = {"-p": arguments.plans, "-c": arguments.configuration, "-f": arguments.fold}
        given = [option for option, value in of_dataset.items() if value not in (None, "all")]
        if given:
            parser.error(f"{given[0]} goes with -d only")
    sections: list[Section] = []

    def command() -> None:
        # importing torch takes seconds, which -h should not
        from nnunet_sfr.doctor.examination import examine
        from nnunet_sfr.doctor.next_step import next_step
        from nnunet_sfr.doctor.printing import as_json, last_lines, section_lines
        from nnunet_sfr.doctor.subject import NamedDataset

        subject = None
        if arguments.dataset is not None:
            subject = NamedDataset(
                arguments.dataset, arguments.configuration, arguments.plans, arguments.fold, arguments.device
            )
        for section in examine(subject, arguments.device):
            sections.append(section)
            if not arguments.json:
                print("\n".join(section_lines(section)), flush=True)
        action, following = next_step(subject, sections, arguments.device)
        print(as_json(sections, following) if arguments.json else last_lines(sections, action, following))

    # what it has to say of wrong variables is part of the report
    return run(command, checks_variables=False) or int(count(sections, Level.PROBLEM) > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "sfr_doctor",
        "Look at installation, folders, trainers and device, and with -d at a data set: images that are in training "
        "and test, labels, folds, plan, SAM, expected memory, and which stages are complete. Nothing is "
        "written. Exit code 1 if something would stop or falsify a run.",
        needs_dataset=False,
        examples={
            "": "installation, folders and device",
            "-d 42": "and a data set: what is wrong with it, and which command comes next",
            "-d 42 -p nnUNetPlansCPU -device cpu": "with a certain plan, for training on the CPU",
            "-d 42 --json": "for a program",
        },
    )
    add_configuration(parser)
    add_fold(parser)
    add_device(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON, with every case that they name"
    )
    return parser
