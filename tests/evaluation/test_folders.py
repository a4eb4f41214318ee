"""Folders of label maps: geometry of the files, regions, ignore label, nnU-Net's own numbers, and what is refused."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io

from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.case_metrics import EvaluationTask, evaluate_case
from nnunet_sfr.evaluation.classes import read_classes
from nnunet_sfr.evaluation.folders import evaluate_folder
from nnunet_sfr.evaluation.summary import class_summaries, foreground_mean
from tests.evaluation.label_folders import DATASET_JSON, SHAPE, SPACING, label_map, write_folder

LIVER_ONLY = {**DATASET_JSON, "labels": {"background": 0, "liver": 1}}


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize(("axis", "distance"), [(0, 10.0), (1, 4.0), (2, 2.0)])
def test_every_axis_has_its_own_spacing(tmp_path: Path, reader: Any, axis: int, distance: float) -> None:
    """A voxel moved by two along slices of 5 mm, rows of 2 mm or columns of 1 mm, whichever way a reader turns them."""
    truth = label_map({1: (1, 1, 1)})
    write_folder(tmp_path / "truth", {"a": truth})
    write_folder(tmp_path / "prediction", {"a": np.roll(truth, 2, axis)})
    evaluation = evaluate_folder(tmp_path / "truth", tmp_path / "prediction", LIVER_ONLY, reader_writer=reader)
    found = evaluation.cases["a"]["liver"]
    assert found.hd95_mm == found.asd_mm == found.assd_mm == pytest.approx(distance)
    assert found.nsd == float(distance <= 2.0)
    assert found.truth_ml == found.prediction_ml == pytest.approx(0.01)
    assert evaluation.unit == "mm"
    counted = evaluate_folder(
        tmp_path / "truth", tmp_path / "prediction", LIVER_ONLY, reader_writer=reader, voxels=True
    )
    assert counted.cases["a"]["liver"].asd_mm == pytest.approx(2.0)
    assert counted.unit == "voxels"
    assert counted.cases["a"]["liver"].truth_ml == evaluation.cases["a"]["liver"].truth_ml


def test_an_empty_prediction_costs_the_diagonal_of_its_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "truth", {"a": label_map({1: (1, 1, 1)})})
    write_folder(tmp_path / "prediction", {"a": label_map({})})
    found = evaluate_folder(tmp_path / "truth", tmp_path / "prediction", DATASET_JSON).cases["a"]
    assert found["liver"].hd95_mm == pytest.approx(math.sqrt(30**2 + 16**2 + 10**2))
    assert found["tumour"].is_both_empty


def test_pictures_are_measured_in_pixels(tmp_path: Path) -> None:
    """Two squares of 3 pixels, 4 pixels apart from left to left, in a picture of 1 slice."""
    square = np.zeros((12, 20), np.uint8)
    square[2:5, 2:5] = 1
    for name, picture in (("truth", square), ("prediction", np.roll(square, 4, axis=1))):
        (tmp_path / name).mkdir()
        io.imsave(tmp_path / name / "a.png", picture, check_contrast=False)
    evaluation = evaluate_folder(tmp_path / "truth", tmp_path / "prediction", {**LIVER_ONLY, "file_ending": ".png"})
    found = evaluation.cases["a"]["liver"]
    assert evaluation.unit == "px"
    # columns of the prediction are 2, 3 and 4 pixels from the truth; its centre is no surface
    assert found.asd_mm == pytest.approx((3 * 2 + 2 * 3 + 3 * 4) / 8)
    assert found.hd95_mm == 4.0
    assert math.isnan(found.truth_ml)
    assert (found.tp, found.fp, found.fn) == (0, 9, 9)


@pytest.mark.parametrize("across", [0, 1, 2])
def test_a_volume_of_one_slice_is_measured_in_its_plane(across: int, tmp_path: Path) -> None:
    """Axial, coronal or sagittal; 5 mm thick, with pixels of 2 x 1 mm."""
    square = label_map({1: (slice(None), slice(1, 6), slice(1, 6))}, (1, 8, 10))
    spacing = list(SPACING[1:])
    spacing.insert(across, SPACING[0])
    for name, label in (("truth", square), ("prediction", np.roll(square, 1, axis=2))):
        write_folder(tmp_path / name, {"a": np.moveaxis(label, 0, across)}, tuple(spacing))
    found = evaluate_folder(tmp_path / "truth", tmp_path / "prediction", LIVER_ONLY).cases["a"]["liver"]
    # 16 pixels of outline: 8 in the rows that both share, 1 column inside and 1 outside of 5 and 3 more at 1 mm
    assert found.asd_mm == pytest.approx((5 + 3) / 16)
    assert found.truth_ml == pytest.approx(25 * 10 / 1000)


def toy_folders(root: Path, dataset_json: dict[str, Any]) -> tuple[Path, Path]:
    """Three cases of random labels; the last has no tumour in either."""
    rng = np.random.default_rng(5)
    highest = max(np.max(value) for value in dataset_json["labels"].values())
    names = ("a", "a-b", "c")
    truths = {name: rng.integers(0, highest + 1, SHAPE).astype(np.uint8) for name in names}
    predictions = {name: rng.integers(0, highest, SHAPE).astype(np.uint8) for name in names}
    for maps in (truths, predictions):
        maps["c"][maps["c"] == 2] = 0
    return write_folder(root / "truth", truths), write_folder(root / "prediction", predictions)


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "liver": 1, "tumour": 2},
        {"background": 0, "organ": [1, 2], "tumour": 2, "vessel": 3},
        {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
    ],
    ids=["labels", "regions", "ignore"],
)
def test_overlap_is_that_of_nnunets_own_summary(tmp_path: Path, labels: dict[str, Any]) -> None:
    dataset_json = {**DATASET_JSON, "labels": labels}
    truth, prediction = toy_folders(tmp_path, dataset_json)
    evaluation = evaluate_folder(truth, prediction, dataset_json)
    assert list(evaluation.cases) == ["a", "a-b", "c"]
    regions = {
        name: tuple(np.atleast_1d(value)) for name, value in labels.items() if name not in ("background", "ignore")
    }
    theirs = [
        compute_metrics(
            str(truth / f"{case}.nii.gz"),
            str(prediction / f"{case}.nii.gz"),
            SimpleITKIO(),
            list(regions.values()),
            labels.get("ignore"),
        )["metrics"]
        for case in evaluation.cases
    ]
    summary = class_summaries(evaluation)
    for name, region in regions.items():
        for case, expected in zip(evaluation.cases.values(), theirs, strict=True):
            found = case[name]
            assert (found.tp, found.fp, found.fn) == tuple(expected[region][key] for key in ("TP", "FP", "FN"))
            np.testing.assert_allclose([found.dice, found.jaccard], [expected[region][key] for key in ("Dice", "IoU")])
        mean = np.nanmean([expected[region]["Dice"] for expected in theirs])
        assert summary[name].metrics["dice"].mean == pytest.approx(mean)
    means = [summary[name].metrics["dice"].mean for name in regions]
    assert foreground_mean(summary)["dice"] == pytest.approx(np.mean(means))


def test_a_worker_process_gets_all_that_it_needs(tmp_path: Path) -> None:
    truth, prediction = toy_folders(tmp_path, DATASET_JSON)
    task = EvaluationTask(
        identifier="a",
        truth=truth / "a.nii.gz",
        prediction=prediction / "a.nii.gz",
        classes=read_classes(DATASET_JSON),
        reader=SimpleITKIO,
        nsd_tolerance_mm=2.0,
    )
    result = pickle.loads(pickle.dumps(evaluate_case(pickle.loads(pickle.dumps(task)))))
    assert result.metrics == evaluate_folder(truth, prediction, DATASET_JSON).cases["a"]


def test_values_that_are_no_label_are_told(tmp_path: Path) -> None:
    """The classic: masks of 0 and 255."""
    truth = label_map({1: (slice(1, 3), slice(1, 3), slice(1, 3))})
    write_folder(tmp_path / "truth", {"a": truth})
    write_folder(tmp_path / "prediction", {"a": truth * 255})
    evaluation = evaluate_folder(tmp_path / "truth", tmp_path / "prediction", LIVER_ONLY)
    assert evaluation.cases["a"]["liver"].is_empty_prediction
    (warning,) = evaluation.warnings
    assert warning.startswith(f"{tmp_path / 'prediction' / 'a.nii.gz'}: has the value 255, which is no label")


def test_missing_predictions(tmp_path: Path) -> None:
    liver = label_map({1: (1, 1, 1)})
    truth = write_folder(tmp_path / "truth", {f"case_{index}": liver for index in range(9)})
    prediction = write_folder(tmp_path / "prediction", {"case_3": liver})
    said = r"no prediction of case_0, case_1, case_2, case_4, case_5 and 3 more; .*--chill"
    with pytest.raises(UserError, match=said):
        evaluate_folder(truth, prediction, DATASET_JSON)
    evaluation = evaluate_folder(truth, prediction, DATASET_JSON, allow_missing=True)
    assert list(evaluation.cases) == ["case_3"]
    assert len(evaluation.missing) == 8
    write_folder(prediction, {"case_x": liver})
    with pytest.raises(UserError, match=r"case_x.nii.gz: has no truth in .*truth"):
        evaluate_folder(truth, prediction, DATASET_JSON, allow_missing=True)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "truth", {"a": label_map({})})
    with pytest.raises(UserError, match="nowhere: not found"):
        evaluate_folder(truth, tmp_path / "nowhere", DATASET_JSON)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".half-written.nii.gz").touch()
    with pytest.raises(UserError, match=r"empty: no file ends in \.nii\.gz"):
        evaluate_folder(truth, tmp_path / "empty", DATASET_JSON)


def moved(image: SimpleITK.Image) -> None:
    image.SetOrigin((0.0, 0.5, 0.0))


def turned(image: SimpleITK.Image) -> None:
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))


def stretched(image: SimpleITK.Image) -> None:
    image.SetSpacing((1.0, 2.0, 5.01))


@pytest.mark.parametrize(
    ("change", "said"), [(moved, "origin"), (turned, "direction"), (stretched, "spacing 5.01 2 1")]
)
def test_a_prediction_on_another_grid(tmp_path: Path, change: Any, said: str) -> None:
    truth = write_folder(tmp_path / "truth", {"case_7": label_map({1: (1, 1, 1)})})
    image = SimpleITK.ReadImage(str(truth / "case_7.nii.gz"))
    change(image)
    (tmp_path / "prediction").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "prediction" / "case_7.nii.gz"))
    with pytest.raises(UserError, match=rf"case_7\.nii\.gz: {said}.* case_7 "):
        evaluate_folder(truth, tmp_path / "prediction", DATASET_JSON)


def test_a_prediction_of_another_size(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "truth", {"case_7": label_map({1: (1, 1, 1)})})
    prediction = write_folder(tmp_path / "prediction", {"case_7": label_map({1: (1, 1, 1)}, (6, 8, 9))})
    with pytest.raises(UserError, match=r"6 x 8 x 9 voxels, but .* case_7 has 6 x 8 x 10"):
        evaluate_folder(truth, prediction, DATASET_JSON)


def test_rounding_of_a_header_is_no_other_grid(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "truth", {"a": label_map({1: (1, 1, 1)})})
    almost = tuple(step * (1 + 3e-6) for step in SPACING)
    prediction = write_folder(tmp_path / "prediction", {"a": label_map({1: (1, 1, 1)})}, almost)
    assert evaluate_folder(truth, prediction, DATASET_JSON).cases["a"]["liver"].dice == 1.0


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "truth", {"a": label_map({1: (1, 1, 1)})})
    (tmp_path / "prediction").mkdir()
    (tmp_path / "prediction" / "a.nii.gz").write_bytes((truth / "a.nii.gz").read_bytes()[:60])
    with pytest.raises(UserError, match=r"prediction/a\.nii\.gz: label of case a cannot be read"):
        evaluate_folder(truth, tmp_path / "prediction", DATASET_JSON)
    (truth / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"truth/a\.nii\.gz: no reader of nnU-Net can open it"):
        evaluate_folder(truth, tmp_path / "prediction", DATASET_JSON)
    rgb = np.zeros((4, 4, 3), np.uint8)
    for name in ("rgb", "rgb_truth"):
        (tmp_path / name).mkdir()
        io.imsave(tmp_path / name / "a.png", rgb, check_contrast=False)
    with pytest.raises(UserError, match=r"a\.png: the label of case a has 3 channels"):
        evaluate_folder(tmp_path / "rgb_truth", tmp_path / "rgb", {**LIVER_ONLY, "file_ending": ".png"})
