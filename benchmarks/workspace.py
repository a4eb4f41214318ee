"""Where benchmarks and the demonstration work: nnU-Net's folders, the environment of commands, and their failures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_sfr.atomic import write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import SFR_PLANS_ENDING

CONFIGURATION = "3d_fullres"
ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
REPOSITORY = Path(__file__).resolve().parent.parent

Runner = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a command in an environment and returns its exit code."""


@dataclass(frozen=True)
class ProjectFolders:
    """nnU-Net's three folders and one data set in them.

    Args:
        folder: of the preprocessed data and the results.
        raw: folder ``nnUNet_raw``, which several projects may share.
        plans: plans identifier.
        dataset: ``DatasetNNN_Name``.
    """

    folder: Path
    raw: Path
    plans: str
    dataset: str

    @property
    def roots(self) -> dict[str, str]:
        """nnU-Net's variables."""
        return dict(zip(ROOTS, map(str, (self.raw, self.folder / ROOTS[1], self.folder / ROOTS[2])), strict=True))

    @property
    def number(self) -> str:
        """Of the data set."""
        return str(int(self.dataset[len("Dataset") :][:3]))

    @property
    def raw_dataset(self) -> Path:
        return self.raw / self.dataset

    @property
    def preprocessed(self) -> Path:
        return self.folder / ROOTS[1] / self.dataset

    @property
    def sfr_plan(self) -> Path:
        return self.preprocessed / f"{self.plans}{SFR_PLANS_ENDING}"


def process_environment(
    roots: Mapping[str, str], *, threads: int | None = None, gpu_defaults: bool = False
) -> dict[str, str]:
    """The environment of every command: nnU-Net's folders, and no more processes than a laptop bears.

    What the user has set stays, but for the folders and a number of threads that is asked for.

    Args:
        roots: nnU-Net's variables.
        threads: of torch in each process; None for one a core, unless the user has set it.
        gpu_defaults: leave workers and compilation to nnU-Net.
    """
    # on a GPU, compiling would take longer than a short training
    ours = {} if gpu_defaults else {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    wanted = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    environment = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), **ours, **os.environ, **roots, **wanted}
    # the commands are those of this Python, whether or not its environment has been activated
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return environment


def run_public_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in a process of its own, with its output on our screen; 128 + signal if it was killed.

    Raises:
        UserError: it is not installed.
    """
    try:
        code = subprocess.run(command, env=environment, cwd=REPOSITORY, check=False).returncode
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not installed beside {sys.executable}; run: pip install -e .") from None
    return code if code >= 0 else 128 - code


def change_settings(sfr_plan: Path, changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Change settings of our configuration in the SFR plan, as a user does with an editor.

    Returns:
        One line per setting that changed.

    Raises:
        UserError: there is no plan of this configuration.
    """
    content = read_json(sfr_plan, "sfr_plan_and_preprocess should have written it")
    configuration = content.get("configurations", {}).get(CONFIGURATION)
    if configuration is None:
        raise UserError(
            f"{sfr_plan}: has no configuration {CONFIGURATION}; sfr_plan_and_preprocess should have made it"
        )
    lines = []
    for section, settings in changes.items():
        values = configuration.setdefault(section, {})
        for name, value in settings.items():
            lines.append(f"{CONFIGURATION}.{section}.{name}: {values.get(name, 'default')} -> {value}")
            values[name] = value
    write_json(content, sfr_plan)
    return lines
