"""The real ``sfr_run`` with the real commands, killed ten times, ends with what an undisturbed run ends with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.marked_processes import MARK, living, none_survives, wait_until_gone
from tests.tiny_project import change_settings, make_project, nnunet_folders

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SEED = 20261121
TRAINER = "nnUNetTrainerSFR_MT_3epochs"
SFR_RUN = "import sys; from nnunet_sfr.entry_points.run import main; sys.exit(main())"
OPTIONS = ("-d", "42", "-pl", "ExperimentPlannerCPU", "--epochs", "3", "-device", "cpu", "-np", "1")
EMPTY = "--accept-empty-labels"
"""Three iterations train SAM too little for anything to be found."""
SETTINGS: dict[str, dict[str, Any]] = {
    "fine_tuning": {"iterations": 3, "validation_every": 1, "warmup_fraction": 0.34},
    "retraining": {"iterations_per_epoch": 1, "validation_iterations_per_epoch": 1},
}

KILLS = (
    (r"\$ sfr_plan", 4.0),
    (r"labelled and|\$ sfr_finetune", 1.0),
    (r"\$ sfr_finetune", 6.0),
    (r"iteration 1:|\$ sfr_pseudolabel", 1.0),
    (r"iteration 2:|\$ sfr_pseudolabel", 1.0),
    (r"iteration 3:|\$ sfr_pseudolabel", 0.5),
    (r"are there already|\$ nnUNetv2_train", 1.0),
    ("Epoch 1|Training done|--val", 1.5),
    ("Epoch 2|Training done|--val", 1.5),
    ("Training done|--val", 2.0),  # what is left takes longer, if only for its imports
)
"""What the run says (or, if the kill before came after that, the next thing), and within how many seconds from then it
is killed."""


class SFRRun:
    """One call of ``sfr_run`` on a project, and what it says.

    Args:
        root: has nnU-Net's three folders; marks the processes.
    """

    def __init__(self, root: Path) -> None:
        folders = {name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SFR_RUN, *OPTIONS, EMPTY],
            env={**os.environ, **folders, MARK: str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    def wait_for(self, pattern: str) -> None:
        """Until it says something, or has ended."""
        while self.process.poll() is None and not re.search(pattern, "".join(self.said)):
            time.sleep(0.02)

    def wait(self) -> str:
        """Until it has ended, as it should."""
        code = self.process.wait()
        self._reader.join()
        output = "".join(self.said)
        assert code == 0, output
        return output


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two copies of a planned project, its cases still to be preprocessed."""
    planned = tmp_path_factory.mktemp("planned")
    with nnunet_folders(planned):
        dataset = make_project(planned, labelled=1, unlabelled=2, test=0, shape=(12, 16, 16))
        change_settings(dataset, SETTINGS)
        for folder in (dataset.paths.labelled, dataset.paths.unlabelled):
            shutil.rmtree(folder)
    copies = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("killed")
    with contextlib.ExitStack() as stack:
        for copy in copies:
            shutil.copytree(planned, copy, dirs_exist_ok=True)
            stack.enter_context(none_survives(str(copy)))
        yield copies


def kill_ten_times(root: Path) -> None:
    """Start it again and again, and kill it at random moments: alone, or with all that it started."""
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    for number, (pattern, span) in enumerate(KILLS, start=1):
        run = SFRRun(root)
        run.wait_for(pattern)
        delay, everything = chance.uniform(0, span), chance.random() < 0.5
        time.sleep(delay)
        assert run.process.poll() is None, "".join(run.said)
        for pid in living(str(root)) if everything else [run.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert run.process.wait() == -signal.SIGKILL
        wait_until_gone(str(root))
        alone = "with all it started" if everything else "alone"
        print(f"kill {number}: {delay:.2f} s after {pattern!r}, {alone}")


def files_below(root: Path) -> dict[str, Path]:
    """Every file by its path, but for logs: their number tells how often a run was begun."""
    files = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
    return {name: file for name, file in files.items() if not re.search("/training_log_|/logs/", name)}


def test_a_run_killed_ten_times_ends_as_an_undisturbed_one(roots: tuple[Path, Path]) -> None:
    undisturbed, killed = roots
    reference = SFRRun(undisturbed)
    kill_ten_times(killed)
    last = SFRRun(killed).wait()
    reference.wait()
    print(last)
    require_same_results(killed, undisturbed)


def require_same_results(killed: Path, undisturbed: Path) -> None:
    """Everything but logs is there, and what was computed is the same to the last bit."""
    expected, found = files_below(undisturbed), files_below(killed)
    assert set(found) == set(expected), "a temporary file is left, or a result is missing"
    assert not [name for name in found if Path(name).name.startswith(".") and ".sfr_run." not in name]

    (store,) = {Path(name).parent for name in expected if Path(name).match("pseudo_labels/*/*/*/manifest.json")}
    labels = [name for name in expected if Path(name).is_relative_to(store) and Path(name).name != "manifest.json"]
    assert len(labels) == 2 * 4, "label map, class locations, confidence and voxel confidence of two cases"
    for name in labels:
        ours, theirs = (content_of(files[name]) for files in (found, expected))
        assert ours == theirs, name
    assert maker(killed / store / "manifest.json") == maker(undisturbed / store / "manifest.json")

    (name,) = [name for name in expected if name.endswith("adapter_final.safetensors")]
    require_same_tensors(load_file(found[name]), load_file(expected[name]))
    for file in ("checkpoint_final.pth", "checkpoint_teacher.pth"):
        (name,) = [name for name in expected if name.endswith(f"{TRAINER}__nnUNetPlansCPU__3d_fullres/fold_all/{file}")]
        of_killed, of_other = (torch.load(files[name], weights_only=False) for files in (found, expected))
        assert of_killed["current_epoch"] == of_other["current_epoch"] == 3
        require_same_tensors(of_killed["network_weights"], of_other["network_weights"])


def content_of(file: Path) -> object:
    """What a file of a case holds, but for the hash of what made a record, which follows from that of the adapter."""
    if file.suffix != ".json":
        return file.read_bytes()
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert len(record.pop("made_by")) == 64
    return record


def maker(manifest: Path) -> dict[str, Any]:
    """What a store was made by and for, but for the hash of the adapter: safetensors shuffles its header."""
    content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    assert content["made_by"].pop("adapter_sha256")
    return content


def require_same_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
