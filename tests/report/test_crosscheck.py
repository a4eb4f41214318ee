"""The section on the cross-check: tables and curves that are read, pictures that are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from nnunet_sfr.atomic import write_json
from nnunet_sfr.crosscheck.findings import LABELLED_CASES, findings_of
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM, LeftOutCase
from nnunet_sfr.data.datasets import LabelledDataset
from nnunet_sfr.data.preprocessed_files import image_hashes
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.report import crosscheck as section
from nnunet_sfr.report.crosscheck import TRUTH, TrueLabels, read_found, show_crosscheck, tables
from nnunet_sfr.report.windows import choose_windows

COLOURS = {1: (255, 0, 0)}


def left_out(case: str, fold: int, dice: float | None, flip: float | None) -> LeftOutCase:
    return LeftOutCase(case, fold, {"1": dice}, {"flip_agreement": flip, "class_voxels": {"1": 5 if dice else 0}})


def store_of(project: SFRDataset, case: str, fold: int, source: str, labels: np.ndarray) -> None:
    made_by = Provenance(source=source)
    store = PseudoLabelStore.create(project.paths.left_out_labels(fold, source), grid=project.grid, made_by=made_by)
    store.write(case, labels, {}, label_manager=project.label_manager, patch_size=labels.shape[1:])


@pytest.fixture
def checked(project: SFRDataset) -> SFRDataset:
    """Three cases: SAM has the truth of the first, nothing of the second, and nnU-Net the other way round."""
    dices = {"train_00": (1.0, 0.0), "train_01": (0.0, 1.0), "train_02": (0.5, 0.5)}
    found: dict[str, list[LeftOutCase]] = {SAM: [], NNUNET: [], MEAN: []}
    for fold, (case, (sam, network)) in enumerate(dices.items()):
        truth = TrueLabels(project.paths.labelled).read_labels(case)
        for source, dice in ((SAM, sam), (NNUNET, network)):
            store_of(project, case, fold, source, truth if dice else np.zeros_like(truth))
            found[source].append(left_out(case, fold, dice, 0.9 if dice else 0.3))
        found[MEAN].append(left_out(case, fold, 1.0, None))
    findings = findings_of(found, {"1": "atrium"}, [{"flip_agreement": 0.8}], nnunet_iterations=400)
    project.paths.crosschecks.mkdir(parents=True, exist_ok=True)
    cases = image_hashes(project.paths.labelled, dices)
    write_json({**findings.to_json(), LABELLED_CASES: cases}, project.paths.crosscheck_result)
    return project


def test_tables_and_curves(checked: SFRDataset, tmp_path: Path) -> None:
    found = read_found(checked)
    assert found is not None
    shown, problems = show_crosscheck(found, checked, tmp_path, COLOURS, choose_windows(checked))
    assert problems == []
    assert shown.outdated == ""
    assert shown.verdict.startswith("Whether SFR helps cannot be told from 3 cases")
    dice, differences = shown.tables
    assert list(dice.columns) == [
        *("Dice (95 % interval)", "SAM", "nnU-Net, 400 iterations", "mean of both", "cases", "not found by SAM")
    ]
    assert [list(row) for row in dice.rows] == [
        ["atrium", "0.500 (0.000 to 1.000)", "0.500 (0.000 to 1.000)", "1.000 (1.000 to 1.000)", "3", "1"],
        ["expected in the unlabelled cases", "0.600", "-", "-", "1", "-"],
    ]
    assert list(differences.columns)[1:] == [
        "SAM minus nnU-Net",
        "mean of both minus SAM",
        "mean of both minus nnU-Net",
    ]
    assert [row[1] for row in differences.rows] == ["0.000 (\N{MINUS SIGN}1.000 to 1.000)"]
    [flip] = shown.calibrations
    assert (flip.measure, [one.name for one in flip.series]) == ("flip_agreement", ["SAM", "nnU-Net"])
    of_sam = flip.series[0]
    assert of_sam.rank_correlation == pytest.approx(np.sqrt(3) / 2)
    assert list(zip(of_sam.cases, of_sam.confidences, of_sam.dices, strict=True)) == [
        ("train_01", 0.3, 0.0),
        ("train_02", 0.9, 0.5),
        ("train_00", 0.9, 1.0),
    ]


def red_pixels(file: Path) -> int:
    return int((np.asarray(Image.open(file).convert("RGBA"))[..., 3] > 0).sum())


def test_the_worst_cases_are_drawn_with_their_truth(checked: SFRDataset, tmp_path: Path) -> None:
    found = read_found(checked)
    assert found is not None
    windows = choose_windows(checked)
    with mock.patch.object(section, "WORST", 2):
        shown, _ = show_crosscheck(found, checked, tmp_path, COLOURS, windows)
        with mock.patch.object(section, "draw_and_measure", side_effect=AssertionError("drawn again")):
            again, _ = show_crosscheck(found, checked, tmp_path, COLOURS, windows)
    assert again == shown
    assert shown.left_out == 3
    assert [(one.key, one.name) for one in shown.sources] == [
        (TRUTH, "truth"),
        (SAM, "SAM"),
        (NNUNET, "nnU-Net, 400 iterations"),
    ]
    assert [example.name for example in shown.worst] == ["train_01", "train_02"]
    worst = shown.worst[0]
    assert all((tmp_path / name).is_file() for name in worst.images.values())
    pixels = {source: red_pixels(tmp_path / result.labels) for source, result in worst.results.items()}
    assert pixels[TRUTH] > 0
    assert (pixels[SAM], pixels[NNUNET]) == (0, pixels[TRUTH])
    assert (worst.results[TRUTH].dice, worst.results[SAM].dice, worst.results[NNUNET].dice) == (None, 0.0, 1.0)
    assert worst.results[NNUNET].classes == [("atrium", 1.0)]


def test_labels_that_are_gone_are_named(checked: SFRDataset, tmp_path: Path) -> None:
    (checked.paths.left_out_labels(1, SAM) / "manifest.json").unlink()
    found = read_found(checked)
    assert found is not None
    shown, [problem] = show_crosscheck(found, checked, tmp_path, COLOURS, choose_windows(checked))
    assert "train_01" not in [example.name for example in shown.worst]
    assert problem.startswith("no pictures of train_01, which SAM was left without: ")
    assert problem.endswith("run sfr_crosscheck again")


@pytest.mark.parametrize("change", ["another case", "another label", "another network", "damaged"])
def test_other_labelled_cases_than_today_are_told(change: str, checked: SFRDataset, tmp_path: Path) -> None:
    found = dict(read_found(checked) or {})
    recorded = dict(found[LABELLED_CASES])
    again = "sfr_crosscheck -d 42 -c 3d_fullres -p nnUNetPlansCPU --with-nnunet --overwrite"
    if change == "another case":
        del recorded["train_00"]
    elif change == "another label":
        recorded["train_00"] = "of another file"
    elif change == "another network":
        recorded["train_00"], found["nnunet_iterations"] = "of another file", None
        again = again.replace(" --with-nnunet", "")
    else:
        (checked.paths.labelled / "train_00.pkl").write_bytes(b"")
    found[LABELLED_CASES] = recorded
    shown, problems = show_crosscheck(found, checked, tmp_path, COLOURS, choose_windows(checked))
    said = f"the cross-check was made with other labelled cases than there are now; run {again}"
    if change == "damaged":
        said = (
            f"whether the cross-check is of today's labelled cases is not known: {checked.paths.labelled}/train_00.pkl"
        )
    assert problems[0].startswith(said)
    assert shown.outdated[1:] == problems[0][1:]


def test_what_an_earlier_version_found_is_shown(checked: SFRDataset, tmp_path: Path) -> None:
    written = json.loads(checked.paths.crosscheck_result.read_text(encoding="utf-8"))
    del written[LABELLED_CASES]
    write_json(written, checked.paths.crosscheck_result)
    found = read_found(checked)
    assert found is not None
    assert show_crosscheck(found, checked, tmp_path, COLOURS, choose_windows(checked))[1] == []


def test_a_damaged_result_is_named(project: SFRDataset) -> None:
    assert read_found(project) is None
    project.paths.crosschecks.mkdir(parents=True, exist_ok=True)
    write_json({"sources": {}}, project.paths.crosscheck_result)
    with pytest.raises(UserError, match=r"crosscheck\.json: the key .* is missing; run sfr_crosscheck again"):
        read_found(project)


def test_the_ignore_label_is_no_label(project: SFRDataset) -> None:
    folder = project.paths.labelled
    truth = LabelledDataset(str(folder), ["train_00"]).load_case("train_00")[1][:]
    assert np.array_equal(TrueLabels(folder).read_labels("train_00"), truth)
    assert not (TrueLabels(folder, ignore_label=1).read_labels("train_00") > 0).any()


def test_several_classes_have_a_mean() -> None:
    cases = [LeftOutCase("a", 0, {"1": 0.9, "2": 0.5}, {"class_voxels": {"1": 5, "2": 5}})]
    found = json.loads(json.dumps(findings_of({SAM: cases}, {"1": "atrium", "2": "valve"}).to_json()))
    [dice] = tables(found, {SAM: "SAM"})
    assert [list(row) for row in dice.rows] == [
        ["atrium", "0.900", "1", "0"],
        ["valve", "0.500", "1", "0"],
        ["mean of all", "0.700", "1", "-"],
    ]
