"""Bad inputs of every kind, and what came of them: one line, a non-zero exit code, nothing half-written.

``python -m tests.bad_inputs TABLE.md`` runs all of them in one process and writes the table; tests/test_bad_inputs.py
runs those that are quick.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from nnunet_sfr.dataset import SFRDataset
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS

CONFIGURATION = "3d_fullres"
SMALLEST_CASE = "unlabelled_00"
CASE = ("-d", "42")
CPU = ("-device", "cpu")
UNCOUNTED = (".sfr_run.lock", ".sfr_run.planning.lock", ".sfr_run.step.lock", "sfr_raw_files.json")
"""Empty files to lock, and a cache of hashes."""


@dataclass(frozen=True)
class BadInput:
    """One row.

    Args:
        what: is wrong, in words.
        command: a module of entry_points.
        arguments: with ``{root}`` for the folder of the project.
        said: part of the line that a user gets.
        spoil: makes the project wrong; gets its folder.
        code: that the command exits with: 1, or 2 where argparse refuses the call.
    """

    what: str
    command: str
    arguments: tuple[str, ...]
    said: str
    spoil: Callable[[Path], None] | None = None
    code: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Args:
        row: that was run.
        code: the exit code; None for an exception.
        lines: error lines.
        changed: files that appeared, changed or vanished.
    """

    row: BadInput
    code: int | None
    lines: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def problem(self) -> str:
        """What is not as it should be; empty where all is well."""
        if self.code != self.row.code:
            return f"exit code {self.code}"
        if len(self.lines) != 1:
            return f"{len(self.lines)} lines"
        if self.row.said not in self.lines[0]:
            return "another message"
        return f"changed: {', '.join(self.changed)}" if self.changed else ""


# --- what spoils a project -------------------------------------------------------------------------------------------


def preprocessed(root: Path) -> Path:
    return root / "nnUNet_preprocessed" / NAME


def raw(root: Path) -> Path:
    return root / "nnUNet_raw" / NAME


def results(root: Path) -> Path:
    return root / "nnUNet_results" / NAME


def store(root: Path) -> Path:
    return preprocessed(root) / "pseudo_labels" / f"{PLANS}__{CONFIGURATION}" / "fold_all"


FILES: dict[str, Callable[[Path], Path]] = {
    "nnU-Net plan": lambda root: preprocessed(root) / f"{PLANS}.json",
    "SFR plan": lambda root: preprocessed(root) / f"{PLANS}_SFRPlans.json",
    "dataset.json": lambda root: preprocessed(root) / "dataset.json",
    "raw dataset.json": lambda root: raw(root) / "dataset.json",
    "fingerprint": lambda root: preprocessed(root) / "dataset_fingerprint.json",
    "splits": lambda root: preprocessed(root) / "splits_final.json",
    "manifest": lambda root: store(root) / "round_0" / "manifest.json",
    "record of a case": lambda root: store(root) / "round_0" / f"{SMALLEST_CASE}.json",
    "selection": lambda root: store(root) / "round_1_selection.json",
    "state of a run": lambda root: (
        results(root) / f"SFR_run__{PLANS}__{CONFIGURATION}" / "fold_all" / "SFR_MT" / "state.json"
    ),
    "cross-check": lambda root: results(root) / f"SFR_crosscheck__{PLANS}__{CONFIGURATION}" / "crosscheck.json",
    "journal of sfr_add_labels": lambda root: raw(root) / ".sfr_add_labels" / ".journal.json",
    "preprocessed properties": lambda root: (
        preprocessed(root) / f"{PLANS}_{CONFIGURATION}_unlabelled/{SMALLEST_CASE}.pkl"
    ),
    "preprocessed image": lambda root: preprocessed(root) / f"{PLANS}_{CONFIGURATION}_unlabelled/{SMALLEST_CASE}.b2nd",
    "labelled properties": lambda root: preprocessed(root) / f"{PLANS}_{CONFIGURATION}/train_00.pkl",
    "labelled image": lambda root: preprocessed(root) / f"{PLANS}_{CONFIGURATION}/train_00.b2nd",
    "labelled segmentation": lambda root: preprocessed(root) / f"{PLANS}_{CONFIGURATION}/train_00_seg.b2nd",
    "pseudo-label": lambda root: store(root) / "round_0" / f"{SMALLEST_CASE}.b2nd",
    "adapter": lambda root: (
        results(root) / f"SFR_SAM__{PLANS}__{CONFIGURATION}/fold_all/round_0/adapter_final.safetensors"
    ),
    "raw image": lambda root: raw(root) / "imagesUl" / f"{SMALLEST_CASE}_0000.nii.gz",
    "raw label": lambda root: raw(root) / "labelsTr" / "train_00.nii.gz",
}

CONTENTS: dict[str, bytes] = {
    "no bytes": b"",
    "half an object": b'{"a": ',
    "a list": b"[1, 2]",
    "an empty object": b"{}",
    "a number": b"3",
    "another encoding": '{"labels": "Präparat"}'.encode("latin-1"),
    "a pickle": b"\x80\x04]\x94.",
}


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        file = FILES[name](root)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    return spoil


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        file = FILES[name](root)
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def replace_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        file = FILES[name](root)
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    return spoil


def setting(section: str, name: str, value: object) -> Callable[[Path], None]:
    return edit("SFR plan", lambda content: content["configurations"][CONFIGURATION][section].__setitem__(name, value))


def one_case(root: Path) -> None:
    """Of the labelled cases, the first is left."""
    for file in (preprocessed(root) / f"{PLANS}_{CONFIGURATION}").iterdir():
        if not file.name.startswith("train_00"):
            file.unlink()


def planned(name: str, value: object) -> Callable[[Path], None]:
    """A value of nnU-Net's plan."""
    return edit("nnU-Net plan", lambda content: content["configurations"][CONFIGURATION].__setitem__(name, value))


def remove(place: Callable[[Path], Path]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        shutil.rmtree(place(root)) if place(root).is_dir() else place(root).unlink()

    return spoil


def make_folder(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).mkdir()


def rename_raw(root: Path) -> None:
    raw(root).rename(raw(root).with_name("Dataset042_New"))


def write_file(file: Path) -> None:
    file.write_text("a file")


def make_file(name: str) -> Callable[[Path], None]:
    return lambda root: write_file(root / name)


def variable(name: str, value: str | None) -> Callable[[Path], None]:
    """Set or unset an environment variable; the caller puts it back."""

    def spoil(root: Path) -> None:
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value.format(root=root)

    return spoil


# --- the rows --------------------------------------------------------------------------------------------------------


def refused_calls() -> Iterator[BadInput]:
    """What argparse and our own checks of the call refuse, before anything is read."""
    rows: dict[str, list[tuple[tuple[str, ...], str]]] = {
        "plan_and_preprocess": [
            ((), "required: -d"),
            (("-np", "0"), "-np: must be a whole number above 0, got '0'"),
            (("-np", "-1"), "-np: must be a whole number above 0, got '-1'"),
            (("-np", "many"), "-np: must be a whole number above 0, got 'many'"),
            (("-npfp", "1.5"), "-npfp: must be a whole number above 0"),
            (("-gpu_memory_target", "-4"), "-gpu_memory_target: must be a number above 0, got '-4'"),
            (("-gpu_memory_target", "0"), "must be a number above 0, got '0'"),
            (("-gpu_memory_target", "nan"), "must be a number above 0, got 'nan'"),
            (("-gpu_memory_target", "inf"), "must be a number above 0, got 'inf'"),
            (("-gpu_memory_target", "8GB"), "must be a number above 0, got '8GB'"),
            (("-overwrite_target_spacing", "nan", "1", "1"), "must be a length in mm"),
            (("-overwrite_target_spacing", "1e9", "1", "1"), "must be a length in mm, from 0.0001 to 1000"),
            (("-overwrite_target_spacing", "0", "1", "1"), "must be a length in mm"),
            (("-overwrite_target_spacing", "-1", "1", "1"), "must be a length in mm"),
            (("-overwrite_target_spacing", "1", "1"), "expected 3 arguments"),
            (
                ("-overwrite_target_spacing", "2,5", "2,5", "2,5"),
                "must be a length in mm, from 0.0001 to 1000, got '2,5'",
            ),
            (("-sam", "nope"), "invalid choice: 'nope'"),
            (("-adaptation", "nope"), "invalid choice: 'nope'"),
            (("-p", ""), "-p: must be a name, and no path, got ''"),
            (("-p", "my/plans"), "-p: must be a name, and no path, got 'my/plans'"),
            (("-p", "A", "-overwrite_plans_name", "B"), "-p and -overwrite_plans_name are one option"),
        ],
        "finetune": [
            (("-f", "-1"), "-f: must be all, or 0, 1, 2, ..., got '-1'"),
            (("-f", "1.5"), "must be all, or 0, 1, 2"),
            (("-f", "first"), "must be all, or 0, 1, 2"),
            (("--round", "-1"), "must be 0, 1, 2, ..., got '-1'"),
            (("-device", "tpu"), "invalid choice: 'tpu'"),
        ],
        "pseudolabel": [
            (("-num_parts", "-3"), "-num_parts: must be a whole number above 0, got '-3'"),
            (("-num_parts", "0"), "-num_parts: must be a whole number above 0, got '0'"),
            (("-num_parts", "x"), "-num_parts: must be a whole number above 0, got 'x'"),
            (("-part_id", "-1"), "-part_id: must be 0, 1, 2, ..., got '-1'"),
            (("-num_parts", "2", "-part_id", "2"), "-part_id must lie between 0 and -num_parts - 1, got 2"),
            (("-chk", "nope"), "invalid choice: 'nope'"),
            (("--round", "1", "--from-model", "a"), "fill the store of round 0"),
            (("--from-model", "a", "--from-images", "b"), "not allowed with argument"),
            (("--model-folds", "-1", "--from-model", "a"), "must be all, or 0, 1, 2"),
        ],
        "select": [
            (("--round", "0"), "--round must be 1 or later"),
            (("--threshold", "nan"), "must be a number from 0 to 1, got 'nan'"),
            (("--threshold", "1.5"), "must be a number from 0 to 1, got '1.5'"),
            (("--quantile", "-0.1"), "must be a number from 0 to 1"),
            (("--confidence", "nope"), "invalid choice"),
            (("--threshold", "0.5", "--quantile", "0.5"), "not allowed with argument"),
        ],
        "run": [
            (("--rounds", "2"), "--rounds goes with --plus only"),
            (("--plus", "--rounds", "-1"), "must be a whole number above 0, got '-1'"),
            (("--epochs", "0"), "must be a whole number above 0, got '0'"),
            (("--method", "nope"), "invalid choice: 'nope'"),
            (("-i", "images"), "-i and -o go together"),
            (("-i", "images", "-o", "images"), "-o must be another folder than -i"),
            (("-num_gpus", "2", "-device", "cpu"), "does not go with -device cpu"),
            (("-num_gpus", "-1"), "must be a whole number above 0"),
            (("-overwrite_target_spacing", "inf", "1", "1"), "must be a length in mm"),
            (("-f", "-1"), "must be all, or 0, 1, 2"),
            (("--status", "--print"), "not allowed with argument"),
            (("-sam", "vit_tiny", "-adaptation", "lora"), "vit_tiny has no pre-trained weights to keep"),
            (("-sam", "vit_tiny", "-checkpoint", "sam.pth"), "vit_tiny has no published weights"),
            (("--with-nnunet",), "--with-nnunet goes with --crosscheck only"),
        ],
        "crosscheck": [
            ((), "required: -d"),
            (("-device", "tpu"), "invalid choice: 'tpu'"),
            (("--with-nnunet", "400"), "unrecognized arguments: 400"),
        ],
        "report": [
            (("--window", "400", "-1000"), "--window must rise from LOW to HIGH, got 400.0 -1000.0"),
            (("--window", "40", "40"), "--window must rise"),
            (("--window", "nan", "40"), "must be a finite number, got 'nan'"),
            (("-np", "0"), "must be a whole number above 0, got '0'"),
            (("--max-pictures", "0"), "must be a whole number above 0, got '0'"),
            (("--annotate", "-1"), "must be a whole number above 0, got '-1'"),
        ],
        "export": [((), "required: -o"), (("-o", "x.zip", "-f", "-1"), "must be all, or 0, 1, 2")],
        "adapt_weights": [(("-i", "a.pth", "-o", "./a.pth"), "-o must be another file than -i")],
        "add_labels": [((), "required: -i"), (("-i", "x", "-np", "0"), "must be a whole number above 0")],
    }
    for command, calls in rows.items():
        for arguments, said in calls:
            case = () if said == "required: -d" else CASE
            yield BadInput(f"sfr_{command} {' '.join(arguments)}", command, (*case, *arguments), said, code=2)
    evaluations: list[tuple[tuple[str, ...], str]] = [
        (("a", "b", "-o", "x.txt"), "-o must end in .json"),
        (("a", "b", "--nsd-tolerance", "nan"), "must be a length in mm"),
        (("a", "b", "--nsd-tolerance", "-1"), "must be a length in mm"),
        (("a", "b", "-np", "0"), "must be a whole number above 0"),
        (("a", "a"), "pred_folder and gt_folder are one folder, a; there is nothing to measure"),
        (("a", "b", "--compare", "./b"), "pred_folder and --compare are one folder"),
        (("a", "b", "-p", "nnUNetPlans"), "-p names plans of a data set; add -d"),
        (("a", "b", "-d", "42", "-djfile", "c"), "-d and -djfile both name a dataset.json"),
    ]
    for arguments, said in evaluations:
        yield BadInput(f"sfr_evaluate {' '.join(arguments)}", "evaluate", arguments, said, code=2)


def wrong_names() -> Iterator[BadInput]:
    """Data sets, plans, configurations, folds, rounds and trainers that there are not."""
    for command in ("finetune", "pseudolabel", "crosscheck", "select", "report", "run", "plan_and_preprocess"):
        yield BadInput("no such number", command, ("-d", "77"), "no data set 77")
    for typed, said in (
        ("0", "no data set 0 in nnUNet_raw"),
        ("-1", "'-1' is neither a data set's number nor its name"),
        ("42.5", "'42.5' is neither"),
        ("", "'' is neither"),
        (NAME.lower(), "is neither"),
        ("Dataset042", f"(there: {NAME})"),
        (f"nnUNet_raw/{NAME}", f"takes a number or a name, and no path; give -d {NAME}"),
    ):
        yield BadInput(f"data set {typed!r}", "finetune", ("-d", typed, *CPU), said)
    for folder, said in (
        (
            "nnUNet_raw",
            f"(Dataset042_Other in nnUNet_raw, {NAME} in nnUNet_raw and nnUNet_preprocessed); rename all but",
        ),
        ("nnUNet_preprocessed", "Dataset042_Other in nnUNet_preprocessed"),
    ):
        spoil = make_folder(f"{folder}/Dataset042_Other")
        yield BadInput(f"two data sets 42 in {folder}", "finetune", (*CASE, *CPU), said, spoil)
        yield BadInput(f"two data sets 42 in {folder}", "run", CASE, said, spoil)
    yield BadInput(
        "raw data set with another name than the planned one", "run", CASE, "Dataset042_New in nnUNet_raw", rename_raw
    )
    yield BadInput("no number and no name", "run", ("-d", "heart"), "is neither a data set's number nor its name")
    yield BadInput("no such name", "finetune", ("-d", "Dataset042_Wrong"), "no data set Dataset042_Wrong")
    for command in ("finetune", "pseudolabel", "select", "report"):
        yield BadInput("no such plan", command, (*CASE, "-p", "Fine"), f"this data set has {PLANS}: choose with -p")
        yield BadInput("no such configuration", command, (*CASE, "-c", "3d_nope"), "has no configuration 3d_nope")
    for command in ("run", "plan_and_preprocess"):
        yield BadInput("no such configuration", command, (*CASE, "-c", "3d_nope"), "-c 3d_nope: no such configuration")
        arguments = (*CASE, "-c", "3d_cascade_fullres")
        yield BadInput("second stage of a cascade", command, arguments, "is the second stage of a cascade")
    yield BadInput("no such fold", "run", (*CASE, "-f", "9"), "fold 9 does not exist; use a number from 0 to 4, or all")
    yield BadInput("fold of too few cases", "run", (*CASE, "-f", "1"), "needs 5 labelled cases and there are 3")
    yield BadInput("no such fold", "finetune", (*CASE, *CPU, "-f", "9"), "fold 9 does not exist")
    yield BadInput("no such fold", "pseudolabel", (*CASE, *CPU, "-f", "9"), "adapter_final.safetensors: not found")
    yield BadInput("no such fold", "report", (*CASE, "-f", "9"), "no pseudo-labels to report on")
    yield BadInput("no such fold", "select", (*CASE, "-f", "9"), "there are no pseudo-labels of the re-trained model")
    yield BadInput("round without the one before", "finetune", (*CASE, *CPU, "--round", "3"), "not found")
    yield BadInput("round 1 before the fine-tuning", "pseudolabel", (*CASE, *CPU, "--round", "1"), "not found")
    yield BadInput("round 1 without a selection", "finetune", (*CASE, *CPU, "--round", "1"), "not found")
    trainer = ("-tr", "nnUNetTrainerSFRPlus_MT")
    yield BadInput("round 2 before round 1", "pseudolabel", (*CASE, *CPU, "--round", "2", *trainer), "no such model")
    yield BadInput(
        "round 3 before round 1", "select", (*CASE, "--round", "3"), "round_3_model: there are no pseudo-label"
    )
    yield BadInput(
        "no such trainer's curves", "report", (*CASE, "-np", "1", "-tr", "Nope"), "Nope has no model of plans"
    )
    yield BadInput("no such trainer", "export", (*CASE, "-tr", "NoTrainer", "-o", "{root}/x.zip"), "no such model")
    round_of_no_trainer = (*CASE, *CPU, "--round", "1", "-tr", "NoTrainer")
    yield BadInput("no such trainer", "pseudolabel", round_of_no_trainer, "there is no such model")
    yield BadInput("no such planner", "plan_and_preprocess", (*CASE, "-pl", "Nope"), "-pl Nope: no such planner")
    yield BadInput("planner without plans", "run", (*CASE, "-pl", "Nope"), "-pl Nope: name its plans with -p, too")
    yield BadInput("no such images", "run", (*CASE, "-i", "{root}/no", "-o", "{root}/out"), "no: no such folder")


def wrong_places() -> Iterator[BadInput]:
    """Variables, and places that cannot be read or written."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        yield BadInput(f"{name} not set", "plan_and_preprocess", CASE, f"{name} is not set", variable(name, None))
    yield BadInput("nnUNet_results not set", "finetune", (*CASE, *CPU), "is not set", variable("nnUNet_results", None))
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        spoil = variable(name, "{root}/nnUNet_raw/" + NAME + "/dataset.json")
        said = "one of the folders of this path is a file"
        yield BadInput(f"{name} is a file", "plan_and_preprocess", (*CASE, "-np", "1", "-npfp", "1"), said, spoil)
    for place, said in (
        ("{root}/gone", "gone), which is no folder; check the variable"),
        ("{root}/nnUNet_raw/" + NAME, "which is a data set or a part of one; export nnUNet_raw="),
        ("{root}/nnUNet_raw/" + NAME + "/imagesTr", "which is a data set or a part of one; export nnUNet_raw="),
        ("{root}", "; export nnUNet_raw="),
    ):
        yield BadInput(f"nnUNet_raw is {place}", "plan_and_preprocess", CASE, said, variable("nnUNet_raw", place))
    for name, value in (("nnUNet_n_proc_DA", "many"), ("nnUNet_def_n_proc", "0"), ("nnUNet_def_n_proc", "")):
        said = f"{name} is {value!r}: export {name}=<whole number from"
        yield BadInput(f"{name} is {value!r}", "finetune", (*CASE, *CPU), said, variable(name, value))
    raw_images, raw_labels = (f"{{root}}/nnUNet_raw/{NAME}/{name}" for name in ("imagesTs", "labelsTr"))
    said = f"holds the raw data of {NAME}; choose another folder"
    yield BadInput("predictions into labelsTr", "run", (*CASE, "-i", raw_images, "-o", raw_labels), said)
    yield BadInput("exported into labelsTr", "pseudolabel", (*CASE, *CPU, "--export", raw_labels), said)
    forbidden = "/proc/nothing"
    yield BadInput(
        "nnUNet_preprocessed in /proc",
        "plan_and_preprocess",
        (*CASE, "-np", "1", "-npfp", "1"),
        "/proc/nothing",
        variable("nnUNet_preprocessed", forbidden),
    )
    yield BadInput(
        "nnUNet_results in /proc", "finetune", (*CASE, *CPU), "/proc/nothing", variable("nnUNet_results", forbidden)
    )
    yield BadInput(
        "nnUNet_results in /proc", "run", (*CASE, *CPU), "/proc/nothing", variable("nnUNet_results", forbidden)
    )
    yield BadInput(
        "nnUNet_results below a file",
        "finetune",
        (*CASE, *CPU),
        "is a file",
        variable("nnUNet_results", "{root}/nnUNet_raw/" + NAME + "/dataset.json"),
    )
    yield BadInput("report into /proc", "report", (*CASE, "-np", "1", "-o", "/proc/nothing"), "/proc/nothing")
    yield BadInput("report into a file", "report", (*CASE, "-np", "1", "-o", "{root}/file"), "file", make_file("file"))
    for place, said in (("/proc/nothing", "/proc"), ("{root}/file", "no such model")):
        arguments = (*CASE, "--from-images", "{root}/maps", "--export", place)
        yield BadInput(
            f"maps that are missing, exported to {place}",
            "pseudolabel",
            arguments,
            place.removeprefix("{root}"),
            make_file("file"),
        )
        arguments = (*CASE, "-tr", "nnUNetTrainer", "-o", place)
        yield BadInput(f"a model that is missing, exported to {place}", "export", arguments, said, make_file("file"))
    yield BadInput("no such folder", "add_labels", (*CASE, "-i", "{root}/no"), "no: not found")
    yield BadInput(
        "a file in its place", "add_labels", (*CASE, "-i", "{root}/file"), "file: is no folder", make_file("file")
    )
    yield BadInput(
        "an empty folder",
        "add_labels",
        (*CASE, "-i", "{root}/empty"),
        "is empty",
        lambda root: (root / "empty").mkdir(),
    )
    yield BadInput("no such folder", "pseudolabel", (*CASE, "--from-images", "{root}/no"), "no: ")
    yield BadInput(
        "no such folder", "pseudolabel", (*CASE, *CPU, "--from-model", "{root}/no"), "dataset.json: not found"
    )
    yield BadInput("no such folders", "evaluate", ("{root}/no", "{root}/nothing"), "nothing: not found")
    yield BadInput("no source", "convert", ("LA", "{root}/no", "-d", "43"), "no")
    yield BadInput(
        "no such checkpoint",
        "plan_and_preprocess",
        (*CASE, "-sam", "vit_b", "-checkpoint", "{root}/no"),
        "no: not found",
    )
    yield BadInput("no such list", "select", (*CASE, "--high", "{root}/no"), "no: ", lambda root: None)


READERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nnU-Net plan": ("finetune", (*CASE, *CPU)),
    "SFR plan": ("pseudolabel", (*CASE, *CPU)),
    "dataset.json": ("finetune", (*CASE, *CPU)),
    "raw dataset.json": ("plan_and_preprocess", (*CASE, "-np", "1", "-npfp", "1")),
    "fingerprint": ("plan_and_preprocess", (*CASE, "-np", "1", "-npfp", "1", "--no_pp")),
    "splits": ("finetune", (*CASE, *CPU, "-f", "0")),
    "manifest": ("report", (*CASE, "-np", "1")),
    "record of a case": ("report", (*CASE, "-np", "1")),
    "cross-check": ("report", (*CASE, "-np", "1")),
    "state of a run": ("run", (*CASE, "--status")),
    "journal of sfr_add_labels": ("run", (*CASE, *CPU)),
}
"""The command that reads a file, for each file of JSON."""


def wrong_json() -> Iterator[BadInput]:
    """Every JSON file, empty, cut, of another shape and in another encoding."""
    for name, (command, arguments) in READERS.items():
        file_name = FILES[name](Path("x")).name
        for what, content in CONTENTS.items():
            if name in ("record of a case", "splits") and what in ("a list", "an empty object"):
                continue  # which they can be
            yield BadInput(f"{name}: {what}", command, arguments, file_name, write(name, content))


def _with_old_warm_up(content: dict[str, Any]) -> None:
    section = content["configurations"][CONFIGURATION]["fine_tuning"]
    del section["warmup_fraction"]
    section["warmup_iterations"] = 250


def wrong_values() -> Iterator[BadInput]:
    """Values in files of the right shape."""
    tune = (*CASE, *CPU)
    for section, name, value, said in (
        ("fine_tuning", "learning_rate", float("inf"), "learning_rate must be a finite number, got inf"),
        ("fine_tuning", "learning_rate", float("nan"), "learning_rate must be a finite number, got nan"),
        ("fine_tuning", "learning_rate", -1, "learning_rate must be positive"),
        ("fine_tuning", "learning_rate", "fast", "learning_rate must be of type float"),
        ("fine_tuning", "iterations", 0, "iterations must be at least 1"),
        ("fine_tuning", "iterations", 1e6, "iterations must be of type int"),
        ("fine_tuning", "warmup_fraction", 1, "warmup_fraction must lie in [0, 1)"),
        ("fine_tuning", "seed", -1, "seed must lie between 0 and 4294967295"),
        ("fine_tuning", "seed", 2**32, "seed must lie between 0 and 4294967295"),
        ("fine_tuning", "batch", 2, "unknown setting batch"),
        ("fine_tuning", "betas", 0.9, "betas must be a list"),
        ("stitching", "patch_size", [500, 500, 500], "patch_size asks for"),
        ("stitching", "patch_size", [0, 8, 8], "patch_size"),
        ("stitching", "canvas_size", -1, "canvas_size"),
        ("sam", "model", "nope", "model must be one of"),
        ("sam", "adaptation", "nope", "adaptation must be one of"),
        ("sam", "checkpoint", 3, "checkpoint must be of type str"),
        ("retraining", "seed", 1e400, "seed must be of type int"),
        ("retraining", "ema_decay", 2, "ema_decay must lie in [0, 1)"),
        ("pseudo_labels", "tile_step_size", 0, "tile_step_size must lie in (0, 1]"),
        ("crosscheck", "nnunet_iterations", 0, "nnunet_iterations must be at least 1"),
        ("crosscheck", "nnunet_iterations", 1e3, "nnunet_iterations must be of type int"),
    ):
        yield BadInput(f"SFR plan: {section}.{name} {value}", "finetune", tune, said, setting(section, name, value))
    yield BadInput(
        "SFR plan: warm-up of version 0.1 longer than the run",
        "finetune",
        tune,
        "warmup_iterations (250) must be fewer than iterations (4); lower both, or put warmup_fraction",
        edit("SFR plan", _with_old_warm_up),
    )
    for what, old, new, said in (
        ("a key twice", '"iterations": 4', '"iterations": 4, "iterations": 9', "the key iterations is there twice"),
        ("a comment", '"iterations": 4', '// fewer\n"iterations": 4', "cannot be read as JSON"),
        ("a comma too many", '"iterations": 4', '"iterations": 4,', "cannot be read as JSON"),
        ("a section misspelt", '"fine_tuning"', '"finetuning"', "unknown section finetuning (known: stitching, sam, "),
        ("no configurations", '"configurations"', '"configuration"', "the key configurations is missing"),
        ("a method's setting misspelt", '"cubes_per_axis"', '"cubes"', "unknown setting cubes"),
    ):
        yield BadInput(f"SFR plan: {what}", "finetune", tune, said, replace_text("SFR plan", old, new))
    values: list[tuple[str, Any, str]] = [
        ("patch_size", "large", "patch_size: expected a list, got 'large'"),
        ("spacing", [1, None, 1], "spacing[1]: expected a finite number, got null"),
        ("spacing", [1, float("nan"), 1], "spacing[1]: expected a finite number, got nan"),
        ("batch_size", 2.5, "batch_size: expected a whole number, got 2.5"),
        ("data_identifier", 3, "data_identifier: expected text, got 3"),
        ("normalization_schemes", {}, "normalization_schemes: expected a list, got an object"),
        ("inherits_from", CONFIGURATION, "inherits from itself"),
        ("inherits_from", "nope", "has no configuration nope"),
    ]
    for name, value, said in values:
        yield BadInput(f"nnU-Net plan: {name} {value}", "finetune", tune, said, planned(name, value))
        yield BadInput(f"nnU-Net plan: {name} {value}", "run", tune, said, planned(name, value))
    yield BadInput(
        "one labelled case",
        "crosscheck",
        (*tune, "--with-nnunet"),
        "has one labelled case; what SAM makes of",
        one_case,
    )
    splits = json.dumps([{"train": "train_00", "val": []}]).encode()
    yield BadInput(
        "splits: text for a list", "finetune", (*tune, "-f", "0"), "[0].train: expected a list", write("splits", splits)
    )
    splits = json.dumps([{"train": ["gone"], "val": ["train_00"]}]).encode()
    yield BadInput(
        "splits: a case that is gone", "finetune", (*tune, "-f", "0"), "fold 0 names gone", write("splits", splits)
    )
    splits = json.dumps([{"train": ["train_00"], "val": []}]).encode()
    yield BadInput(
        "splits: no case to validate on",
        "finetune",
        (*tune, "-f", "0"),
        "fold 0 has no case under val",
        write("splits", splits),
    )
    splits = json.dumps([{"train": ["train_00"], "val": ["train_01"]}]).encode()
    yield BadInput(
        "splits: one fold, asked for the second",
        "finetune",
        (*tune, "-f", "1"),
        "has no fold 1",
        write("splits", splits),
    )
    yield BadInput(
        "splits: one fold, asked for the second", "run", (*tune, "-f", "1"), "has no fold 1", write("splits", splits)
    )


def wrong_binaries() -> Iterator[BadInput]:
    """Pickles, arrays, adapters and images that are damaged or missing."""
    report, plan = ("report", (*CASE, "-np", "1")), ("plan_and_preprocess", (*CASE, "-np", "1", "-npfp", "1"))
    label, tune = ("pseudolabel", (*CASE, *CPU)), ("finetune", (*CASE, *CPU))
    for name, (command, arguments), said in (
        ("preprocessed properties", report, f"{SMALLEST_CASE}.pkl"),
        ("preprocessed image", report, f"{SMALLEST_CASE}.b2nd"),
        ("pseudo-label", report, f"{SMALLEST_CASE}.b2nd"),
        ("labelled properties", tune, "train_00.pkl"),
        ("labelled image", tune, "train_00.b2nd"),
        ("labelled segmentation", tune, "train_00_seg.b2nd"),
        ("adapter", label, "adapter_final.safetensors"),
        ("raw image", plan, f"{SMALLEST_CASE}_0000.nii.gz"),
        ("raw label", plan, "train_00.nii.gz"),
    ):
        for what in ("no bytes", "a list", "a pickle"):
            yield BadInput(f"{name}: {what}", command, arguments, said, write(name, CONTENTS[what]))
    yield BadInput("no pickle", *report, f"{SMALLEST_CASE}", remove(FILES["preprocessed properties"]))
    yield BadInput("no unlabelled images", *plan, "imagesUl", remove(lambda root: raw(root) / "imagesUl"))
    yield BadInput("no labels", *plan, "labelsTr", remove(lambda root: raw(root) / "labelsTr"))
    yield BadInput("no raw data", "plan_and_preprocess", CASE, f"no data set {NAME} in nnUNet_raw", remove(raw))
    yield BadInput("no plan", "finetune", (*CASE, *CPU), "not found; run sfr_plan_and_preprocess", remove(preprocessed))
    yield BadInput(
        "no preprocessed cases",
        "pseudolabel",
        (*CASE, *CPU),
        "no preprocessed unlabelled cases",
        remove(lambda root: FILES["preprocessed image"](root).parent),
    )


GROUPS: dict[str, Callable[[], Iterable[BadInput]]] = {
    "calls": refused_calls,
    "names": wrong_names,
    "places": wrong_places,
    "JSON": wrong_json,
    "values": wrong_values,
    "files": wrong_binaries,
}


# --- running ---------------------------------------------------------------------------------------------------------


def files_below(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file, and of every folder that it is there."""
    found = {}
    for path in root.rglob("*"):
        if path.name not in UNCOUNTED:
            status = path.lstat()
            found[str(path.relative_to(root))] = (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def run(row: BadInput, root: Path) -> Outcome:
    """Spoil a project, call the command in this process, and see what came out.

    Args:
        row: what to do.
        root: of a fresh copy of the project, to which nnU-Net's variables are set.
    """
    with mock.patch.dict(os.environ):
        if row.spoil is not None:
            row.spoil(root)
        before = files_below(root)
        errors = io.StringIO()
        code: int | None = None
        main = import_module(f"nnunet_sfr.entry_points.{row.command}").main
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main([argument.format(root=root) for argument in row.arguments])
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except Exception as error:  # what the table is to find
                errors.write(f"\nerror: TRACEBACK {type(error).__name__}: {error}")
        after = files_below(root)
    lines = [line for line in errors.getvalue().replace("\r", "\n").splitlines() if "error: " in line]
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return Outcome(row, code, tuple(lines), tuple(changed))


def copied(template: Path, root: Path) -> None:
    """A fresh copy of the project."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)


def write_table(outcomes: Iterable[Outcome], file: Path, root: Path) -> None:
    rows = ["| # | input | command | what came out | exit code | |", "|---|---|---|---|---|---|"]
    for number, outcome in enumerate(outcomes, start=1):
        typed = f"sfr_{outcome.row.command} {' '.join(outcome.row.arguments)}".replace("{root}/", "")
        said = " // ".join(outcome.lines).replace(str(root) + "/", "").replace("|", "\\|")
        cells = (outcome.row.what, f"`{typed}`", said, outcome.code, outcome.problem)
        rows.append(f"| {number} | " + " | ".join(str(cell).replace("\n", " ") for cell in cells) + " |")
    file.write_text("\n".join(rows) + "\n")


def main(arguments: list[str]) -> int:
    """Run all rows, or those of the groups that are named, and write the table."""
    from tests.tiny_project import fill_store, make_project, nnunet_folders

    file, *groups = arguments
    with TemporaryDirectory() as folder:
        template, root = Path(folder, "template"), Path(folder, "project")
        with nnunet_folders(template):
            dataset: SFRDataset = make_project(template)
            fill_store(dataset)
        outcomes = []
        with nnunet_folders(root):
            for name in groups or GROUPS:
                for row in GROUPS[name]():
                    copied(template, root)
                    outcomes.append(run(row, root))
                    if outcomes[-1].problem:
                        print(name, row.what, "->", outcomes[-1].problem, outcomes[-1].lines, flush=True)
        write_table(outcomes, Path(file), root)
    problems = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{len(outcomes)} bad inputs, {problems} not as they should be")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
