"""The scripts in docs/cluster.md call the commands as they are."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.run.run_training import run_training_entry

from nnunet_sfr.entry_points import finetune, plan_and_preprocess, pseudolabel, run, select
from nnunet_sfr.pipeline.sequence import shell_commands
from tests.patience import PATIENCE, wait_until
from tests.pipeline.fake_commands import run_options
from tests.pipeline.marked_processes import MARK, none_survives
from tests.tiny_project import nnunet_folders

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
WALL_TIME, JOBS, FOLDS, _, SEVERAL_GPUS = re.findall(
    r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
)
SBATCH = """#!/bin/sh
# as sbatch would, but at once: the lines that it is given, and a job's number
for word in "$@"; do case "$word" in --wrap=*) echo "${word#--wrap=}" >> "$SUBMITTED";; esac; done
echo 1
"""
"""In the place of SLURM's."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the scripts would run, as a shell makes it of them."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SUBMITTED": str(folder / "submitted")}
    subprocess.run(["bash", "-euc", JOBS + FOLDS], env=environment, check=True, capture_output=True)
    return (folder / "submitted").read_text(encoding="utf-8").splitlines()


def essence(command: str) -> list[str]:
    """Its words without defaults, and without what makes a job of a command."""
    said_or_not = ("-c", "3d_fullres", "-f", "all", "--c", "-np", "-num_parts", "8", "-part_id", "$SLURM_ARRAY_TASK_ID")
    return [word for word in shlex.split(command) if word not in said_or_not]


def test_the_jobs_are_the_commands_that_are_printed(commands: list[str], tmp_path: Path) -> None:
    folders = {"images": Path("new_images"), "predictions": Path("predictions")}
    options = run_options(method="ACMT", plans="nnUNetPlans", rounds=2, device="auto", **folders)
    with nnunet_folders(tmp_path):
        printed = [line for line in shell_commands(options).splitlines() if not line.startswith("#")]
    folds = len(printed)
    assert list(map(essence, commands[:folds])) == list(map(essence, printed))
    assert [command.split()[0] for command in commands[folds:]] == ["sfr_finetune", "sfr_pseudolabel", "nnUNetv2_train"]
    assert all("$SLURM_ARRAY_TASK_ID" in command for command in commands[folds:])


@pytest.mark.parametrize(
    ("name", "main"),
    [
        ("sfr_plan_and_preprocess", plan_and_preprocess.main),
        ("sfr_finetune", finetune.main),
        ("sfr_pseudolabel", pseudolabel.main),
        ("sfr_select", select.main),
        ("sfr_run", run.main),
        ("nnUNetv2_train", run_training_entry),
        ("nnUNetv2_predict", predict_entry_point),
    ],
)
def test_every_option_exists(
    name: str,
    main: Callable[[], Any],
    commands: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "-h"])
    with pytest.raises(SystemExit):
        main()
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", capsys.readouterr().out))
    lines = [line.removesuffix(" &") for line in [*commands, *WALL_TIME.splitlines()] if line.split()[0] == name]
    assert lines
    given = {word for line in lines for word in shlex.split(line) if word.startswith("-")}
    assert given <= known


def test_the_processes_of_several_gpus_run_the_command_that_the_page_names() -> None:
    lines = [shlex.split(line, comments=True) for line in SEVERAL_GPUS.splitlines()]
    assert [line[0] for line in lines] == ["torchrun", "accelerate"]
    for line in lines:
        assert line[line.index("-m") + 1 :] == [finetune.__name__, "-d", "42"]
    comment = SEVERAL_GPUS.partition("# in the place of: ")[2].splitlines()[0]
    assert comment == "sfr_finetune -d 42"


def test_a_job_whose_time_is_up_is_requeued(tmp_path: Path) -> None:
    """The first script, with stand-ins for the commands: sfr_run hears SIGTERM, and ends before the requeue."""
    for name, script in (
        ("sfr_run", f"trap 'echo ended >> {tmp_path}/told; exit 143' TERM; touch {tmp_path}/begun; sleep 1000 & wait"),
        ("scontrol", f'echo "$@" >> {tmp_path}/told'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", MARK: str(tmp_path)}
    with none_survives(str(tmp_path)):
        job = subprocess.Popen(["bash", "-c", WALL_TIME], env=environment)
        wait_until((tmp_path / "begun").exists, "the stand-in for sfr_run has begun")
        job.terminate()
        job.wait(timeout=PATIENCE)
    assert (tmp_path / "told").read_text(encoding="utf-8") == "ended\nrequeue 17\n"
