"""SFR from end to end on a CPU: ``python demo/run.py``, or with volumes of your own ``--data FOLDER``.

Plans synthetic volumes (see ``synthetic.py``), shortens the schedules, and lets ``sfr_run`` go the rest of the way.
Every command is shown as it would be typed; the end is the Dice of pseudo-labels and predictions and a picture of them,
in the output folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.options import positive_number, whole_number
from benchmarks.workspace import Runner, run_public_command
from demo.raw_data import open_volumes
from demo.steps import DemoFolders, DemoOptions, run_demo
from demo.synthetic import write_volumes
from nnunet_sfr.conversion.volume_folder import VolumeFolder
from nnunet_sfr.entry_points import command_line
from nnunet_sfr.errors import UserError

MARKER = ".nnunet_sfr_demo"
SYNTHETIC_LABELLED, REAL_LABELLED = 3, 4
SYNTHETIC_SPACING, REAL_SPACING = 3.0, 2.5
"""Voxel sizes in mm that let two cores go the whole way in ten minutes."""


def main(arguments: Sequence[str] | None = None, run: Runner = run_public_command) -> int:
    """Run the demonstration; the exit code is that of the step that failed, or 0."""
    options = _parser().parse_args(arguments)

    def command() -> None:
        output = options.output.expanduser().resolve()
        _prepare_output(output, data=options.data)
        run_demo(_volumes(options, output), DemoFolders(output), _options(options), run)

    exit_code: int = command_line.run(command, interrupted="the demonstration starts from the beginning next time")
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="demo/run.py"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for everything, emptied first (demo_output)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where to train (cpu)")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=Path, help="folder with images/*.nii.gz, labels/*.nii.gz and splits.json (synthetic volumes)"
    )
    data.add_argument(
        "--labelled",
        type=positive_number,
        metavar="N",
        help=f"with --data: take labeled_N of splits.json ({REAL_LABELLED})",
    )
    data.add_argument(
        "--spacing",
        type=_spacing,
        metavar="MM",
        help=f"voxel size to train at ({REAL_SPACING:g} with --data, else {SYNTHETIC_SPACING:g})",
    )
    data.add_argument("--limit-unlabelled", type=positive_number, metavar="K", help="take K unlabelled cases (all)")
    data.add_argument("--limit-test", type=positive_number, metavar="K", help="take K test cases (all)")
    data.add_argument("--seed", type=whole_number, default=0, help="of the synthetic volumes (0)")
    length, planned = parser.add_argument_group("length of the trainings"), DemoOptions()
    for name, text in (
        ("iterations", "iterations of SAM's fine-tuning"),
        ("epochs", "epochs of nnU-Net's training"),
        ("iterations_per_epoch", "iterations in each of them"),
    ):
        default = getattr(planned, name)
        flag = f"--{name.replace('_', '-')}"
        length.add_argument(flag, type=positive_number, default=default, metavar="N", help=f"{text} ({default})")
    return parser


def _spacing(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a length in mm above 0, got {text!r}")
    return value


def _options(options: argparse.Namespace) -> DemoOptions:
    return DemoOptions(
        device=options.device,
        spacing=options.spacing or (REAL_SPACING if options.data else SYNTHETIC_SPACING),
        iterations=options.iterations,
        epochs=options.epochs,
        iterations_per_epoch=options.iterations_per_epoch,
    )


def _volumes(options: argparse.Namespace, output: Path) -> VolumeFolder:
    if options.data:
        folder, labelled = options.data, options.labelled or REAL_LABELLED
    else:
        folder, labelled = output / "volumes", SYNTHETIC_LABELLED
        print(f"Drawing synthetic volumes into {folder}", flush=True)
        write_volumes(folder, seed=options.seed, labelled=labelled)
    return open_volumes(
        folder, labelled=labelled, limit_unlabelled=options.limit_unlabelled, limit_test=options.limit_test
    )


def _prepare_output(output: Path, *, data: Path | None) -> None:
    """Make an empty output folder; one from an earlier run is deleted, any other that holds something is refused."""
    if data is not None and data.expanduser().resolve().is_relative_to(output):
        raise UserError(f"{output}: would be emptied, but --data lies in it; choose another --output")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            raise UserError(f"{output}: holds files that no demonstration wrote; empty it or choose another --output")
        print(f"Starting again: deleting the last run in {output}", flush=True)
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()


if __name__ == "__main__":
    sys.exit(main())
