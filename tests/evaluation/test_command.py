"""``sfr_evaluate`` as a user calls it: where labels come from, what is written, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from skimage import io

from nnunet_sfr.entry_points import evaluate
from tests.evaluation.label_folders import DATASET_JSON, label_map, write_folder
from tests.tiny_project import nnunet_folders

Call = Callable[..., tuple[int, str, str]]
LIVER = label_map({1: (slice(1, 4), slice(2, 5), slice(2, 5))})
BOTH = label_map({1: (slice(1, 4), slice(2, 5), slice(2, 5)), 2: (4, 6, 7)})


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command in this process: exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sfr_evaluate", *map(str, arguments)])
        code = evaluate.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A truth and a prediction as nnU-Net leaves it: case a is right, b misses the tumour, c has none."""
    truth = write_folder(tmp_path / "truth", {"a": BOTH, "b": BOTH, "c": LIVER})
    prediction = write_folder(tmp_path / "prediction", {"a": BOTH, "b": LIVER, "c": LIVER})
    (prediction / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (prediction / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    (prediction / "summary.json").write_text("nnU-Net's")
    return truth, prediction


def refused(call: Call, said: str, *arguments: str | Path) -> None:
    code, _, stderr = call(*arguments)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in stderr


def without_nan(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_written(call: Call, folders: tuple[Path, Path]) -> None:
    truth, prediction = folders
    code, stdout, _ = call(truth, prediction, "-np", "1")
    assert code == 0
    assert "tumour: empty prediction, counted as the worst possible: 1 of 3 cases" in stdout
    assert "tumour: truth and prediction empty, in no mean: 1 of 3 cases" in stdout
    content = without_nan((prediction / "sfr_metrics.json").read_text(encoding="utf-8"))
    tumour = content["classes"]["tumour"]
    assert (tumour["n_both_empty"], tumour["n_empty_predictions"], tumour["n_empty_truths"]) == (1, 1, 0)
    assert (tumour["metrics"]["dice"]["n"], tumour["metrics"]["dice"]["mean"]) == (2, 0.5)
    assert content["cases"]["c"]["tumour"]["dice"] is None
    assert content["cases"]["a"]["tumour"]["hd95_mm"] == 0.0
    assert content["foreground_mean"]["dice"] == 0.75
    assert content["units"]["hd95_mm"] == "mm"
    assert content["settings"] == {"nsd_tolerance_mm": 2.0}
    assert "an empty prediction never improves a mean" in content["rules"]["one_empty"]
    assert set(content["made_by"]) == {"nnunet_sfr", "nnunetv2", "monai", "numpy"}
    assert [content["truth"], content["prediction"]] == [str(truth), str(prediction)]
    assert "comparison" not in content
    with (prediction / "sfr_metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, name) for case in "abc" for name in ("liver", "tumour")
    ]
    assert (rows[5]["dice"], rows[5]["hd95_mm"], rows[5]["tp"]) == ("", "", "0")
    assert (rows[3]["dice"], rows[3]["fn"], rows[2]["truth_ml"]) == ("0.0", "1", "0.27")
    assert (prediction / "summary.json").read_text(encoding="utf-8") == "nnU-Net's"


def test_a_comparison(call: Call, folders: tuple[Path, Path], tmp_path: Path) -> None:
    truth, prediction = folders
    other = write_folder(tmp_path / "other", {case: LIVER for case in "abc"})
    code, stdout, _ = call(truth, prediction, "--compare", other, "-o", tmp_path / "out" / "both.json")
    assert code == 0
    assert "compared with" in stdout
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {"both.json", "both.csv"}
    comparison = without_nan((tmp_path / "out" / "both.json").read_text(encoding="utf-8"))["comparison"]
    dice = comparison["classes"]["tumour"]["dice"]
    assert (dice["n"], dice["difference"], dice["low"], dice["high"]) == (2, 0.5, 0.0, 1.0)
    assert (dice["n_better"], dice["n_worse"], dice["higher_is_better"], dice["verdict"]) == (1, 0, True, "unclear")
    distance = comparison["classes"]["tumour"]["hd95_mm"]
    assert (distance["n_better"], distance["higher_is_better"]) == (1, False)
    assert distance["difference"] < 0
    assert comparison["foreground_mean"]["dice"]["n"] == 3
    assert comparison["interval"] == {"method": "percentile bootstrap", "level": 0.95, "resamples": 10000, "seed": 0}


def test_pictures_have_pixels_in_every_name(call: Call, tmp_path: Path) -> None:
    for name in ("truth", "prediction"):
        (tmp_path / name).mkdir()
        io.imsave(tmp_path / name / "a.png", LIVER[2], check_contrast=False)
    (tmp_path / "prediction" / "dataset.json").write_text(json.dumps({**DATASET_JSON, "file_ending": ".png"}))
    code, stdout, _ = call(tmp_path / "truth", tmp_path / "prediction", "--compare", tmp_path / "truth")
    assert code == 0
    assert "95HD [px]" in stdout
    text = (tmp_path / "prediction" / "sfr_metrics.json").read_text(encoding="utf-8")
    assert "_mm" not in text
    content = without_nan(text)
    assert content["units"]["hd95_px"] == "px"
    assert content["settings"] == {"nsd_tolerance_px": 2.0}
    assert content["cases"]["a"]["liver"]["asd_px"] == 0.0
    assert content["cases"]["a"]["liver"]["truth_ml"] is None
    assert "hd95_px" in (tmp_path / "prediction" / "sfr_metrics.csv").read_text(encoding="utf-8").splitlines()[0]


def test_distances_in_voxels_have_another_name(call: Call, folders: tuple[Path, Path]) -> None:
    truth, prediction = folders
    code, stdout, _ = call(truth, prediction, "--voxels", "--nsd-tolerance", "1", "-np", "1")
    assert code == 0
    assert "95HD [voxels]" in stdout
    assert "NSD (1 voxels)" in stdout
    content = without_nan((prediction / "sfr_metrics.json").read_text(encoding="utf-8"))
    assert content["units"]["hd95_voxels"] == "voxels"
    assert content["settings"] == {"nsd_tolerance_voxels": 1.0}
    # the diagonal of the image, which stands for the tumour that was missed, in voxels
    assert content["cases"]["b"]["tumour"]["asd_voxels"] == pytest.approx(math.hypot(*BOTH.shape))


def test_labels_from_every_place(call: Call, folders: tuple[Path, Path], tmp_path: Path) -> None:
    truth, prediction = folders
    named = tmp_path / "named.json"
    named.write_text(json.dumps({**DATASET_JSON, "labels": {"background": 0, "organ": [1, 2], "tumour": 2}}))
    assert call(truth, prediction, "-djfile", named, "-pfile", prediction / "plans.json", "-np", "1")[0] == 0
    assert list(without_nan((prediction / "sfr_metrics.json").read_text(encoding="utf-8"))["classes"]) == [
        "organ",
        "tumour",
    ]
    with nnunet_folders(tmp_path):
        raw = tmp_path / "nnUNet_raw" / "Dataset042_Liver"
        raw.mkdir()
        (raw / "dataset.json").write_text(json.dumps({**DATASET_JSON, "labels": {"background": 0, "all": [1, 2]}}))
        assert call(truth, prediction, "-d", "42")[0] == 0
        assert list(without_nan((prediction / "sfr_metrics.json").read_text(encoding="utf-8"))["classes"]) == ["all"]
        refused(call, "no data set 43", truth, prediction, "-d", "43")
        refused(call, "TYPO.json: not found; leave -p out", truth, prediction, "-d", "42", "-p", "TYPO")
    (prediction / "dataset.json").unlink()
    refused(call, "dataset.json: not found; name the data set with -d", truth, prediction)


def test_mistakes(call: Call, folders: tuple[Path, Path], tmp_path: Path) -> None:
    truth, prediction = folders
    before = sorted(prediction.iterdir())
    refused(call, "nowhere: not found; name the folder with the predictions", truth, tmp_path / "nowhere")
    refused(call, "nowhere: not found; name a folder with label maps", tmp_path / "nowhere", prediction)
    refused(call, "sfr.json: is a folder", truth, prediction, "-o", folder(tmp_path / "sfr.json"))
    refused(call, "one of the folders of this path is a file", truth, prediction, "-o", truth / "a.nii.gz" / "x.json")
    (tmp_path / "plans.json").write_text('{"image_reader_writer": "NoReader"}')
    refused(call, "'NoReader', no reader of nnU-Net", truth, prediction, "-pfile", tmp_path / "plans.json")
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "a": 1}}')
    refused(
        call,
        f"{tmp_path / 'dataset.json'}: the key file_ending",
        truth,
        prediction,
        "-djfile",
        tmp_path / "dataset.json",
    )
    (prediction / "b.nii.gz").rename(tmp_path / "b.nii.gz")
    refused(call, "no prediction of b; predict them, or leave them out with --chill", truth, prediction)
    assert sorted(prediction.iterdir()) == [entry for entry in before if entry.name != "b.nii.gz"]
    code, stdout, _ = call(truth, prediction, "--chill")
    assert code == 0
    assert "left out, for want of a prediction: 1 of 3 cases" in stdout
    assert without_nan((prediction / "sfr_metrics.json").read_text(encoding="utf-8"))["missing_predictions"] == ["b"]


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-d", "1", "-djfile", "x"), "-d and -djfile both name"),
        (("-o", "x.csv"), "-o must end in .json, got x.csv"),
        (("-np", "0"), "must be a whole number above 0, got '0'"),
        (("--nsd-tolerance", "-1"), "must be a length in mm, got '-1'"),
        (("--nsd-tolerance", "wide"), "must be a length in mm, got 'wide'"),
    ],
)
def test_options_that_make_no_sense(
    call: Call, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call("truth", "prediction", *options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
