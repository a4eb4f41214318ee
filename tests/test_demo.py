"""The demonstration: its volumes are hard and repeatable, its folder is checked, its commands come in order."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from benchmarks.workspace import change_settings, process_environment
from demo.figure import Picture, centre_of, draw
from demo.raw_data import build_raw_data, open_volumes
from demo.run import main
from demo.scoring import Score, as_text, dice, table_rows
from demo.steps import DemoFolders, DemoOptions, choose_cases, command_lines
from demo.synthetic import LARGEST_SIZE, SMALLEST_SIZE, Volume, make_volume, write_volumes
from nnunet_sfr.errors import UserError

CASES = ["a", "b", "c", "d", "e"]
"""Of the small folder: a is labelled, d and e are for testing."""

SFR_PLAN = {"configurations": {"3d_fullres": {"fine_tuning": {"iterations": 6000}, "stitching": {"canvas_size": 256}}}}


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return [make_volume(0, index) for index in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as ``--data`` takes it, with volumes of 6 x 8 x 10 voxels."""
    folder = tmp_path / "data"
    for index, case in enumerate(CASES):
        truth = np.zeros((6, 8, 10), np.uint8)
        truth[2:4, 2:6, 3 : 6 + index % 2] = 1
        _write(truth * 100 + index, folder / "images" / f"{case}.nii.gz")
        _write(truth, folder / "labels" / f"{case}.nii.gz")
    _write_splits(folder, order=CASES, labeled_1=["a"], development_test=["d", "e"])
    return folder


def _write(array: NDArray[np.generic], file: Path, spacing: float = 2.0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing,) * 3)
    sitk.WriteImage(image, str(file))


def _write_splits(folder: Path, **content: object) -> None:
    (folder / "splits.json").write_text(json.dumps(content))


# --- synthetic volumes ------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(volumes: list[Volume]) -> None:
    again, other_seed = make_volume(0, 1), make_volume(1, 1)
    assert again.image.tobytes() == volumes[1].image.tobytes()
    assert again.label.tobytes() == volumes[1].label.tobytes()
    assert again.spacing == volumes[1].spacing
    assert other_seed.image.tobytes() != volumes[1].image.tobytes()


def test_volumes_are_of_the_stated_sizes_and_the_target_is_one_piece(volumes: list[Volume]) -> None:
    for volume in volumes:
        assert volume.image.dtype == np.int16
        assert volume.label.dtype == np.uint8
        assert volume.image.shape == volume.label.shape
        sizes = zip(SMALLEST_SIZE, volume.image.shape, LARGEST_SIZE, strict=True)
        assert all(least <= size <= most for least, size, most in sizes)
        assert all(2.0 <= step <= 3.0 for step in volume.spacing)
        assert set(np.unique(volume.label)) == {0, 1}
        assert 0.005 < volume.label.mean() < 0.05
        assert label(volume.label, np.ones((3, 3, 3)))[1] == 1
    assert len({volume.image.shape for volume in volumes}) > 1


def test_no_threshold_finds_the_target(volumes: list[Volume]) -> None:
    """Even the best threshold of each case, chosen with its truth, and even its best connected part, stay low."""
    by_threshold, by_part = [], []
    for volume in volumes:
        smooth, truth = gaussian_filter(volume.image.astype(float), 1), volume.label
        masks = [smooth > value for value in np.quantile(smooth, np.linspace(0.5, 0.995, 40))]
        by_threshold.append(max(dice(truth, mask.astype(np.uint8)) for mask in masks))
        by_part.append(max(dice(truth, _part_with_most_of(truth, mask)) for mask in masks))
    assert np.mean(by_threshold) < 0.7
    assert np.mean(by_part) < 0.8
    # A test that could not reach a high value would prove nothing: a few voxels off the truth do.
    assert dice(volumes[0].label, np.roll(volumes[0].label, 1, axis=2)) > 0.85


def _part_with_most_of(truth: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    parts, count = label(mask)
    shared = np.bincount(parts[truth > 0], minlength=count + 1)
    shared[0] = 0
    part: NDArray[np.uint8] = ((parts == shared.argmax()) & mask).astype(np.uint8)
    return part


def test_written_volumes_open_with_their_split(tmp_path: Path) -> None:
    write_volumes(tmp_path, seed=3, labelled=1, unlabelled=1, test=1)
    opened = open_volumes(tmp_path, labelled=1)
    assert (opened.split.labelled, opened.split.unlabelled, opened.split.test) == (
        ("case00",),
        ("case01",),
        ("case02",),
    )
    image, volume = sitk.ReadImage(str(opened.image("case01"))), make_volume(3, 1)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.image)
    np.testing.assert_allclose(image.GetSpacing(), volume.spacing[::-1], rtol=1e-6)


# --- nnU-Net's raw folder ---------------------------------------------------------------------------------------------


def test_raw_data_in_nnunets_layout(folder: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "Dataset900_SFRDemo"
    build_raw_data(open_volumes(folder, labelled=1), dataset)
    files = {str(file.relative_to(dataset)) for file in dataset.rglob("*") if file.is_file()}
    images = {"imagesTr/a", "imagesUl/b", "imagesUl/c", "imagesTs/d", "imagesTs/e"}
    assert files == {f"{image}_0000.nii.gz" for image in images} | {"labelsTr/a.nii.gz", "dataset.json"}
    content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "label_1": 1}
    assert content["numTraining"] == 1
    assert (dataset / "imagesUl/b_0000.nii.gz").read_bytes() == (folder / "images/b.nii.gz").read_bytes()


def test_split_is_disjoint_and_can_be_limited(folder: Path) -> None:
    split = open_volumes(folder, labelled=1).split
    assert (split.labelled, split.unlabelled, split.test) == (("a",), ("b", "c"), ("d", "e"))
    limited = open_volumes(folder, labelled=1, limit_unlabelled=1, limit_test=1).split
    assert (limited.labelled, limited.unlabelled, limited.test) == (("a",), ("b",), ("d",))


def test_truth_is_needed_for_labelled_cases_only(folder: Path) -> None:
    (folder / "labels/b.nii.gz").unlink()
    volumes = open_volumes(folder, labelled=1)
    assert volumes.with_truth(volumes.split.unlabelled) == ("c",)


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def _split(**changes: object) -> Callable[[Path], None]:
    content = {"order": CASES, "labeled_1": ["a"], "development_test": ["d", "e"], **changes}
    return lambda folder: _write_splits(folder, **content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_remove("labels"), r"labels: no such folder"),
        (_remove("splits.json"), r"splits\.json: not found"),
        (_remove("images/b.nii.gz"), r"images/b\.nii\.gz: not found; add it or take b out"),
        (_remove("labels/a.nii.gz"), r"labels/a\.nii\.gz: not found"),
        (_split(labeled_1="a"), r"labeled_1 must be a list of case names"),
        (_split(order=[*CASES, "a"]), r"a: more than once in order"),
        (_split(labeled_1=["x"]), r"x: in labeled_1 but not in order"),
        (_split(development_test=["a"]), r"a: both in labeled_1 and in development_test"),
        (_split(development_test=["b", "c", "d", "e"]), r"leaves no unlabelled case"),
        (lambda folder: (folder / "images/c.nii.gz").write_text("no image"), r"c\.nii\.gz: cannot be read as NIfTI"),
        (
            lambda folder: _write(np.zeros((6, 8, 9), np.uint8), folder / "labels/d.nii.gz"),
            r"d\.nii\.gz: case d has 9 x 8 x 6 voxels, but \S+images/d\.nii\.gz has 10 x 8 x 6",
        ),
        (
            lambda folder: _write(np.zeros((6, 8, 10), np.uint8), folder / "labels/d.nii.gz", spacing=1.0),
            r"d\.nii\.gz: case d lies elsewhere than \S+images/d\.nii\.gz",
        ),
    ],
)
def test_damaged_folder_is_refused_in_one_line(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=says) as caught:
        open_volumes(folder, labelled=1)
    assert "\n" not in str(caught.value)


def test_a_header_that_is_rounded_is_the_same_grid(folder: Path) -> None:
    """What counts is how far voxels lie from their place, as in every other data set that is converted."""
    _write(np.zeros((6, 8, 10), np.uint8), folder / "labels/d.nii.gz", spacing=2.004)
    assert open_volumes(folder, labelled=1).split.test == ("d", "e")


def test_other_numbers_of_labelled_cases_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"has no labeled_4; choose --labelled from: 1"):
        open_volumes(folder, labelled=4)


@pytest.mark.parametrize("values", [(0, 2), (0,), (1, 2)])
def test_labels_with_gaps_are_refused(folder: Path, tmp_path: Path, values: tuple[int, ...]) -> None:
    _write(np.resize(np.array(values, np.uint8), (6, 8, 10)), folder / "labels/a.nii.gz")
    with pytest.raises(UserError, match="without a gap"):
        build_raw_data(open_volumes(folder, labelled=1), tmp_path / "raw")


# --- scores -----------------------------------------------------------------------------------------------------------


def test_dice_by_hand() -> None:
    first = np.array([[1, 1, 1, 0], [0, 0, 2, 2]])
    second = np.array([[1, 1, 0, 0], [0, 0, 0, 2]])
    assert dice(first, second) == pytest.approx(2 * 2 / (3 + 2))
    assert dice(first, second, label=2) == pytest.approx(2 * 1 / (2 + 1))
    assert dice(first, first) == 1
    assert dice(first, np.zeros_like(first)) == 0
    assert np.isnan(dice(first, second, label=3))


def test_table_holds_each_case_and_the_mean_of_each_result() -> None:
    scores = [Score("pseudo-label", "b", (0.5,)), Score("pseudo-label", "c", (0.75,)), Score("prediction", "d", (1.0,))]
    rows = table_rows(scores, ["label_1"])
    assert rows == [
        ["result", "case", "Dice"],
        ["pseudo-label", "b", "0.500"],
        ["pseudo-label", "c", "0.750"],
        ["pseudo-label", "mean", "0.625"],
        ["prediction", "d", "1.000"],
        ["prediction", "mean", "1.000"],
    ]
    assert as_text(rows[:2]).splitlines() == [
        "result        case  Dice",
        "------------  ----  -----",
        "pseudo-label  b     0.500",
    ]


def test_the_page_for_beginners_shows_the_table_as_it_is_printed() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "first-model.md").read_text(encoding="utf-8")
    scores = [Score("pseudo-label", "case03", (0.5,)), Score("prediction", "case09", (1.0,))]
    printed = as_text(table_rows(scores, ["label_1"])).splitlines()
    assert "\n".join(printed[:2]) in page
    assert all(re.sub(r"\d\.\d+", "...", line) in page for line in printed)


def test_table_of_several_labels_leaves_out_what_no_volume_has() -> None:
    scores = [Score("prediction", "d", (0.5, 1.0)), Score("prediction", "e", (0.7, float("nan")))]
    rows = table_rows(scores, ["wall", "blood"])
    assert rows[0] == ["result", "case", "Dice", "wall", "blood"]
    assert rows[-1] == ["prediction", "mean", "0.725", "0.600", "1.000"]


def test_figure_shows_the_median_and_the_lowest_case(tmp_path: Path, volumes: list[Volume]) -> None:
    scores = [Score("prediction", name, (value,)) for name, value in zip("abc", (0.9, 0.2, 0.6), strict=True)]
    assert [(score.case, rank) for score, rank in choose_cases(scores, "prediction")] == [
        ("c", "median"),
        ("b", "lowest"),
    ]
    assert choose_cases(scores[:1], "prediction") == [(scores[0], "median")]
    assert choose_cases(scores, "pseudo-label") == []
    truth = volumes[0].label
    draw([Picture("Test case", "a", volumes[0].image, truth, truth, volumes[0].spacing)], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_planes_go_through_the_middle_of_the_target() -> None:
    labels = np.zeros((5, 7, 9), np.uint8)
    assert centre_of(labels) == (2, 3, 4)
    labels[1, 2:5, 6] = 1
    assert centre_of(labels) == (1, 3, 6)


# --- the whole demonstration ------------------------------------------------------------------------------------------


class FakeCommands:
    """Takes the place of the commands: notes their lines and writes the files that the next step reads."""

    def __init__(self, folder: Path, output: Path, *, failing: str = "") -> None:
        self.folder, self.workspace, self.failing = folder, DemoFolders(output.resolve()), failing
        self.lines: list[str] = []
        self.plan: object = None

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        assert environment["nnUNet_raw"] == str(self.workspace.output / "nnUNet_raw")
        self.lines.append(" ".join(command))
        name = command[0]
        if name == self.failing:
            return 3
        if name == "sfr_plan_and_preprocess":
            self.workspace.sfr_plan.parent.mkdir(parents=True)
            self.workspace.sfr_plan.write_text(json.dumps(SFR_PLAN))
        if name == "sfr_run" and "--status" not in command:
            self.plan = json.loads(self.workspace.sfr_plan.read_text(encoding="utf-8"))
            self._copy(("d", "e"), self.workspace.predictions)
        if name == "sfr_pseudolabel":
            self._copy(("b", "c"), self.workspace.pseudo_labels)
        return 0

    def _copy(self, cases: Sequence[str], target: Path) -> None:
        target.mkdir()
        for case in cases:
            shutil.copy(self.folder / "labels" / f"{case}.nii.gz", target)


def test_the_whole_demonstration_runs_the_public_commands_in_order(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    commands = FakeCommands(folder, output)
    arguments = ["--data", str(folder), "--labelled", "1", "--spacing", "2", "--output", str(output)]
    assert main([*arguments, "--iterations", "20", "--epochs", "2", "--iterations-per-epoch", "5"], commands) == 0
    case, raw = "-d 900 -c 3d_fullres -p nnUNetPlansCPU -device cpu", f"{output}/nnUNet_raw/Dataset900_SFRDemo"
    run = f"sfr_run {case} --epochs 2 -i {raw}/imagesTs -o {output}/predictions"
    assert commands.lines == [
        "sfr_plan_and_preprocess -d 900 -c 3d_fullres -pl ExperimentPlannerCPU -overwrite_target_spacing 2 2 2",
        run,
        f"sfr_pseudolabel {case} --export {output}/pseudo_labels",
        f"sfr_report -d 900 -c 3d_fullres -p nnUNetPlansCPU -o {output}/report",
        f"{run} --status",
    ]
    printed = capsys.readouterr().out
    assert all(f"$ {line}\n" in printed for line in commands.lines)
    assert f"export nnUNet_raw={output}/nnUNet_raw" in printed
    assert "3d_fullres.fine_tuning.iterations: 6000 -> 20" in printed
    # The short schedule is there before the first command that trains.
    assert commands.plan == {
        "configurations": {
            "3d_fullres": {
                "stitching": {"canvas_size": 256},
                "fine_tuning": {"iterations": 20, "warmup_fraction": 0.1, "validation_every": 6},
                "retraining": {"iterations_per_epoch": 5, "validation_iterations_per_epoch": 1},
            }
        }
    }
    assert (output / "table.csv").read_text(encoding="utf-8").splitlines()[-1] == "prediction,mean,1.000"
    assert "| **prediction** | **mean** | **1.000** |" in (output / "table.md").read_text(encoding="utf-8")
    assert (output / "figure.png").is_file()


def test_failing_step_ends_with_its_exit_code(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = FakeCommands(folder, tmp_path / "output", failing="sfr_run")
    assert main(["--data", str(folder), "--labelled", "1", "--output", str(tmp_path / "output")], commands) == 3
    assert len(commands.lines) == 2
    printed = capsys.readouterr().err
    assert printed == "error: step 2 of 5, sfr_run, failed with exit code 3 after 0 min 00 s; its messages are above\n"


def test_an_interrupted_demonstration_says_what_comes_next(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(command: Sequence[str], environment: Mapping[str, str]) -> int:
        raise KeyboardInterrupt

    assert main(["--data", str(folder), "--labelled", "1", "--output", str(tmp_path / "output")], interrupted) == 130
    said = "interrupted (SIGINT); the demonstration starts from the beginning next time\n"
    assert capsys.readouterr().err == said


def test_without_a_spacing_the_planner_chooses(tmp_path: Path) -> None:
    plan = next(iter(command_lines(DemoFolders(tmp_path), DemoOptions()).values()))
    assert "-overwrite_target_spacing" not in plan


def test_second_run_starts_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "output"
    arguments = ["--data", str(folder), "--labelled", "1", "--output", str(output)]
    assert main(arguments, FakeCommands(folder, output)) == 0
    (output / "left over").touch()
    assert main(arguments, FakeCommands(folder, output)) == 0
    assert not (output / "left over").exists()
    assert "Starting again: deleting the last run" in capsys.readouterr().out


def test_files_that_are_not_ours_are_never_deleted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    commands = FakeCommands(folder, tmp_path)
    assert main(["--output", str(tmp_path)], commands) == 1
    assert "holds files that no demonstration wrote" in capsys.readouterr().err
    assert main(["--data", str(folder), "--output", str(tmp_path)], commands) == 1
    assert "--data lies in it" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()
    assert commands.lines == []


def test_users_threads_stay_and_the_commands_are_those_of_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("nnUNet_raw", "/elsewhere")
    environment = process_environment(DemoFolders(tmp_path).project.roots)
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_schedules_need_a_planned_configuration(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"configurations": {"2d": {}}}')
    with pytest.raises(UserError, match="has no configuration 3d_fullres"):
        change_settings(file, DemoOptions().schedules)


def test_short_schedules_are_settings_that_exist() -> None:
    """A setting that is renamed must be renamed here too, or the demonstration would end at its second step."""
    from nnunet_sfr.plans import SFRConfiguration

    stitching = {"patch_size": [4, 32, 32], "canvas_size": 64}
    configuration = SFRConfiguration.from_dict({"stitching": stitching, **DemoOptions().schedules})
    assert configuration.fine_tuning.iterations == DemoOptions().iterations
    assert configuration.retraining.iterations_per_epoch == DemoOptions().iterations_per_epoch
