"""Corrected labels: what becomes of the cases, what stays as it was, what is refused, and calls that are killed."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_sfr.corrections import add_labels as add_labels_module
from nnunet_sfr.corrections import label_maps, outdated, raw_data
from nnunet_sfr.corrections.add_labels import add_labels
from nnunet_sfr.data.datasets import PseudoLabelledDataset
from nnunet_sfr.data.preprocessing import PreprocessingResult, preprocess
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.label_journal import FOLDER, PARTIAL, Journal, read_journal, remove_remains, stage
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.locking import locked, planning_locked
from nnunet_sfr.paths import DatasetPaths, RunPaths, portable_name
from nnunet_sfr.pipeline.state import RunState, StepRecord
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.pipeline import plan_and_preprocess
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.pseudo_labelling import pseudo_label
from nnunet_sfr.selection import read_selection, select
from tests.later_round import BY_FLIPS, fill_model_store
from tests.tiny_dataset import BACKGROUND, BLOB, NAME, write_image
from tests.tiny_project import PLANS, fill_store, make_project, nnunet_folders, project_copy

FIRST, REST, LAST = "unlabelled_00", "unlabelled_01", "unlabelled_02"
COARSE = "Coarse"
CPU = torch.device("cpu")
SPLITS = [{"train": ["train_00"], "val": ["train_01"]}, {"train": ["train_01"], "val": ["train_00"]}]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled and three unlabelled cases of two channels, two plans, two stores, a selection and two folds."""
    root = tmp_path_factory.mktemp("template")
    with nnunet_folders(root), pytest.MonkeyPatch.context() as patch:
        dataset = make_project(root, labelled=2, unlabelled=3, test=0, channels=2)
        patch.setattr(fingerprint, "FOREGROUND_SAMPLES", 6000)
        options: dict[str, Any] = {"fingerprint_processes": 1, "processes": 1, "sam": "vit_tiny"}
        spacing = (1.25, 1.25, 1.25)
        plan_and_preprocess(NAME, planner="ExperimentPlannerCPU", plans_name=COARSE, target_spacing=spacing, **options)
        fill_store(dataset)
        fill_model_store(dataset, {FIRST: 0.9, REST: 0.8, LAST: 0.1})
        select(dataset, "all", 1, BY_FLIPS, overrule_low=[FIRST])
        for folder in (dataset.paths.raw, dataset.paths.preprocessed):  # a user's own, and what the planner copied
            (folder / "splits_final.json").write_text(json.dumps(SPLITS))
        corrected = root / "corrected"
        for case in (FIRST, LAST):
            image = dataset.paths.raw_unlabelled / f"{case}_0000.nii.gz"
            write_image(corrected / f"{case}.nii.gz", blob(image).astype(np.uint8))
    return root


@pytest.fixture
def dataset(template: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    with project_copy(template, tmp_path / "project") as dataset:
        yield dataset


@pytest.fixture
def corrected(dataset: SFRDataset) -> Path:
    """Two of three label maps."""
    return dataset.paths.raw.parents[1] / "corrected"


def blob(image: Path) -> np.ndarray:
    array: np.ndarray = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(image))) > (BACKGROUND + BLOB) / 2
    return array


def add(folder: Path, **options: Any) -> None:
    add_labels(NAME, folder, typed=f"sfr_add_labels -d 42 -i {folder}", **options)


def below(folder: Path) -> dict[str, bytes]:
    """The content of every file but locks."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in sorted(files.items()) if ".sfr_run." not in name}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def identifiers(folder: Path) -> list[str]:
    return sorted(nnUNetDatasetBlosc2.get_identifiers(str(folder)))


def content(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_raw_data_follow(dataset: SFRDataset, corrected: Path) -> None:
    before = below(dataset.paths.raw)
    add(corrected)
    raw = list_cases(dataset.paths.raw)
    assert [case.identifier for case in raw.labelled] == ["train_00", "train_01", FIRST, LAST]
    assert [case.identifier for case in raw.unlabelled] == [REST]
    assert raw.dataset_json["numTraining"] == 4
    after = below(dataset.paths.raw)
    for case in (FIRST, LAST):
        for channel in ("_0000.nii.gz", "_0001.nii.gz"):
            assert after[f"imagesTr/{case}{channel}"] == before[f"imagesUl/{case}{channel}"]
        assert after[f"labelsTr/{case}.nii.gz"] == (corrected / f"{case}.nii.gz").read_bytes()
    assert len(after) == len(before) + 2
    assert not (dataset.paths.raw / FOLDER).exists()


def test_the_cases_are_preprocessed_as_labelled_ones_and_no_other_is_touched(
    dataset: SFRDataset, corrected: Path
) -> None:
    coarse = open_dataset(NAME, "3d_fullres", COARSE)
    truth = blob(dataset.paths.raw_unlabelled / f"{LAST}_0000.nii.gz")
    untouched = {
        file: file.stat().st_mtime_ns
        for paths in (dataset.paths, coarse.paths)
        for file in (*paths.labelled.iterdir(), *paths.unlabelled.glob(f"{REST}*"), paths.plans_file)
    }
    add(corrected)
    for opened in (dataset, coarse):
        assert identifiers(opened.paths.labelled) == ["train_00", "train_01", FIRST, LAST]
        assert names(opened.paths.unlabelled) == [f"{REST}.b2nd", f"{REST}.pkl", f"{REST}_seg.b2nd"]
        # what sfr_plan_and_preprocess would make by this plan, and nothing more
        raw = list_cases(dataset.paths.raw)
        again = preprocess(raw, opened.paths, opened.plans_manager, processes=1)
        assert again == PreprocessingResult(made=0, kept=5, removed=0)
    assert {file: file.stat().st_mtime_ns for file in untouched} == untouched
    _, labels, _, properties = nnUNetDatasetBlosc2(str(dataset.paths.labelled)).load_case(LAST)
    np.testing.assert_array_equal(labels[0], truth)  # the plan's grid is the images'
    assert len(properties["class_locations"][1]) > 0
    assert content(dataset.paths.preprocessed / "dataset.json")["numTraining"] == 4
    truths = dataset.paths.preprocessed / "gt_segmentations"
    assert (truths / f"{LAST}.nii.gz").read_bytes() == (corrected / f"{LAST}.nii.gz").read_bytes()


def test_splits_stores_and_selections_follow(dataset: SFRDataset, corrected: Path) -> None:
    add(corrected)
    paths = dataset.paths
    assert content(paths.preprocessed / "splits_final.json") == [
        {"train": ["train_00", FIRST, LAST], "val": ["train_01"]},
        {"train": ["train_01", FIRST, LAST], "val": ["train_00"]},
    ]
    assert dataset.split(1) == (["train_01", FIRST, LAST], ["train_00"])
    for folder in (paths.pseudo_labels("all"), paths.model_pseudo_labels("all", 1)):
        assert names(folder) == ["manifest.json", f"{REST}.b2nd", f"{REST}.json", f"{REST}.pkl"]
    # what is left can be trained on
    store = PseudoLabelStore.open(paths.pseudo_labels("all"), grid=dataset.grid)
    assert PseudoLabelledDataset(paths.unlabelled, store).identifiers == [REST]
    selection = read_selection(paths.selection("all", 1), [REST])
    assert (selection.high, selection.low, dict(selection.values)) == ((REST,), (), {REST: 0.8})
    assert selection.overruled == {"high": [], "low": []}


def test_a_new_plan_can_be_made_where_the_user_has_folds(dataset: SFRDataset, corrected: Path) -> None:
    """nnU-Net's planner refuses folds in the raw data that are others than those beside the plan."""
    paths = dataset.paths
    add(corrected)
    assert content(paths.raw / "splits_final.json") == content(paths.preprocessed / "splits_final.json")
    options: dict[str, Any] = {"fingerprint_processes": 1, "processes": 1, "sam": "vit_tiny"}
    plan_and_preprocess(NAME, planner="ExperimentPlannerCPU", plans_name="Third", skip_preprocessing=True, **options)
    assert (paths.preprocessed / "Third.json").is_file()
    assert dataset.split(0) == (["train_00", FIRST, LAST], ["train_01"])


def test_the_fingerprint_remembers_what_it_was_made_from(dataset: SFRDataset, corrected: Path) -> None:
    file = dataset.paths.preprocessed / "dataset_fingerprint.json"
    before = content(file)
    add(corrected)
    after = content(file)
    added = after["nnunet_sfr"].pop("labels_added")
    assert added == {"cases": [FIRST, LAST], "stamp": list_cases(dataset.paths.raw).stamp()}
    assert after == before, "so that sfr_plan_and_preprocess makes it again"


def test_a_folder_that_grows(dataset: SFRDataset, corrected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = corrected / f"{LAST}.nii.gz"
    later.rename(corrected.parent / later.name)
    add(corrected)
    (corrected.parent / later.name).rename(later)
    add(corrected)
    assert "1 of 2 cases have this very label already" in capsys.readouterr().out
    assert [case.identifier for case in list_cases(dataset.paths.raw).labelled] == ["train_00", "train_01", FIRST, LAST]
    assert content(dataset.paths.preprocessed / "dataset_fingerprint.json")["nnunet_sfr"]["labels_added"]["cases"] == [
        FIRST,
        LAST,
    ]
    before = below(dataset.paths.raw.parents[1])
    add(corrected)
    assert below(dataset.paths.raw.parents[1]) == before


def test_a_list_of_cases_in_dataset_json_grows(dataset: SFRDataset, corrected: Path) -> None:
    file = dataset.paths.raw / "dataset.json"
    listed = {
        case: {"images": [f"./imagesTr/{case}_000{channel}.nii.gz" for channel in range(2)], "label": label}
        for case, label in (("train_00", "./labelsTr/train_00.nii.gz"), ("train_01", "./labelsTr/train_01.nii.gz"))
    }
    file.write_text(json.dumps({**content(file), "dataset": listed}))
    with pytest.raises(UserError, match=r"dataset\.json have changed since they were planned; run sfr_plan_and"):
        add(corrected)
    of_planning = dataset.paths.preprocessed / "dataset_fingerprint.json"
    of_planning.write_text(
        json.dumps({**content(of_planning), "nnunet_sfr": {"stamp": list_cases(dataset.paths.raw).stamp()}})
    )
    add(corrected)
    assert content(file)["dataset"] == {
        **listed,
        **{
            case: {
                "images": [f"imagesTr/{case}_0000.nii.gz", f"imagesTr/{case}_0001.nii.gz"],
                "label": f"labelsTr/{case}.nii.gz",
            }
            for case in (FIRST, LAST)
        },
    }
    assert [case.identifier for case in list_cases(dataset.paths.raw).labelled] == ["train_00", "train_01", FIRST, LAST]


def test_unlabelled_images_on_another_disk(
    dataset: SFRDataset, corrected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """imagesUl can be a link to one."""
    replace = os.replace

    def other_disk(source: Path, target: Path) -> None:
        if Path(source).parent.name != Path(target).parent.name:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    image = dataset.paths.raw_unlabelled / f"{FIRST}_0001.nii.gz"
    before = image.read_bytes(), image.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", other_disk)
        target = corrected.parent / "moved"
        raw_data._move(image, target / image.name)
    moved = target / image.name
    assert (moved.read_bytes(), moved.stat().st_mtime_ns) == before
    assert not image.exists()


def test_a_relative_link_in_a_folder_that_is_a_link_still_leads_to_the_image(tmp_path: Path) -> None:
    pool, raw = tmp_path / "disk" / "pool" / "unlabelled", tmp_path / "raw"
    for folder in (pool, raw):
        folder.mkdir(parents=True)
    (tmp_path / "disk" / "scan").write_text("voxels")
    (pool / "a_0000.nii.gz").symlink_to("../../scan")
    (raw / "imagesUl").symlink_to(pool)
    for _ in range(2):  # a call that was killed is repeated
        raw_data._move(raw / "imagesUl" / "a_0000.nii.gz", raw / "imagesTr" / "a_0000.nii.gz")
        assert (raw / "imagesTr" / "a_0000.nii.gz").read_text(encoding="utf-8") == "voxels"
        assert names(pool) == []
    assert (raw / "imagesTr" / "a_0000.nii.gz").is_symlink()
    assert names(raw / "imagesTr") == ["a_0000.nii.gz"]


def test_stores_that_are_being_replaced_or_were_set_aside_lose_the_cases_too(
    dataset: SFRDataset, corrected: Path
) -> None:
    store = dataset.paths.pseudo_labels("all")
    hidden = [store.parent / place / store.name for place in (".new", ".earlier")]
    for copy in hidden:
        shutil.copytree(store, copy)
    add(corrected)
    for copy in hidden:
        assert names(copy) == ["manifest.json", f"{REST}.b2nd", f"{REST}.json", f"{REST}.pkl"]


# --- refused ---------------------------------------------------------------------------------------------------------


def unknown_case(folder: Path, raw: Path) -> None:
    (folder / "unlabeled_01.nii.gz").write_bytes((folder / f"{LAST}.nii.gz").read_bytes())


def other_file(folder: Path, raw: Path) -> None:
    (folder / "notes.txt").write_text("looked at it")


def labelled_case(folder: Path, raw: Path) -> None:
    write_image(folder / "train_00.nii.gz", np.zeros((18, 22, 20), np.uint8))


def another_size(folder: Path, raw: Path) -> None:
    write_image(folder / f"{LAST}.nii.gz", np.zeros((18, 22, 20), np.uint8))


def another_spacing(folder: Path, raw: Path) -> None:
    write_image(folder / f"{LAST}.nii.gz", np.zeros((20, 24, 22), np.uint8), (1.0, 1.0, 1.5))


def another_origin(folder: Path, raw: Path) -> None:
    image = SimpleITK.ReadImage(str(folder / f"{LAST}.nii.gz"))
    image.SetOrigin((0.0, 0.0, 7.0))
    SimpleITK.WriteImage(image, str(folder / f"{LAST}.nii.gz"))


def another_value(folder: Path, raw: Path) -> None:
    write_image(folder / f"{LAST}.nii.gz", np.full((20, 24, 22), 3, np.uint8))


def half_a_file(folder: Path, raw: Path) -> None:
    file = folder / f"{LAST}.nii.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty_folder(folder: Path, raw: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_folder(folder: Path, raw: Path) -> None:
    shutil.rmtree(folder)


def every_case(folder: Path, raw: Path) -> None:
    write_image(folder / f"{REST}.nii.gz", np.zeros((19, 23, 21), np.uint8))


def forgotten_label(folder: Path, raw: Path) -> None:
    (raw / "labelsTr" / f"{LAST}.nii.gz").write_text("of last week")


def forgotten_image(folder: Path, raw: Path) -> None:
    """Which the list of cases in dataset.json leaves out."""
    file = raw / "dataset.json"
    listed = {
        case: {"images": [f"imagesTr/{case}_000{channel}.nii.gz" for channel in range(2)], "label": label}
        for case, label in (("train_00", "labelsTr/train_00.nii.gz"), ("train_01", "labelsTr/train_01.nii.gz"))
    }
    file.write_text(json.dumps({**content(file), "dataset": listed}))
    (raw / "imagesTr" / f"{LAST}_0001.nii.gz").write_text("of last week")


def forgotten_sidecar(folder: Path, raw: Path) -> None:
    (raw / "imagesUl" / f"{LAST}_0000.json").write_text("of the scanner")
    (raw / "imagesTr" / f"{LAST}_0000.json").write_text("of another one")


def new_image(folder: Path, raw: Path) -> None:
    for channel in range(2):
        write_image(
            raw / "imagesUl" / f"unlabelled_07_000{channel}.nii.gz",
            np.arange(7920, dtype=np.float32).reshape(18, 22, 20),
        )


def no_plan(folder: Path, raw: Path) -> None:
    shutil.rmtree(raw.parents[1] / "nnUNet_preprocessed" / NAME)


def damaged_splits(folder: Path, raw: Path) -> None:
    (raw.parents[1] / "nnUNet_preprocessed" / NAME / "splits_final.json").write_text("[{}]")


def damaged_own_splits(folder: Path, raw: Path) -> None:
    (raw / "splits_final.json").write_text("[{}]")


def damaged_selection(folder: Path, raw: Path) -> None:
    pools = raw.parents[1] / "nnUNet_preprocessed" / NAME / "pseudo_labels"
    next(pools.rglob("*_selection.json")).write_text("half")


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (unknown_case, "unlabeled_01.nii.gz: is no label map of an unlabelled case; remove it, or call it <case>.nii"),
        (other_file, "notes.txt: is no label map of an unlabelled case"),
        (labelled_case, "train_00.nii.gz: case train_00 is labelled already, by"),
        (another_size, f"{LAST}.nii.gz: 18 x 22 x 20 voxels, but the image of case {LAST} has 20 x 24 x 22"),
        (another_spacing, f"{LAST}.nii.gz: spacing 1 1 1.5, but the image of case {LAST} has 1 1 1"),
        (another_origin, f"{LAST}.nii.gz: origin 0 0 7, but the image of case {LAST} has 0 0 0"),
        (another_value, f"{LAST}.nii.gz: case {LAST} has the label 3, which dataset.json does not name"),
        (half_a_file, f"{LAST}.nii.gz: label of case {LAST} cannot be read"),
        (empty_folder, "corrected: is empty; put label maps there"),
        (no_folder, "corrected: not found; name the folder with the label maps"),
        (every_case, "labels every unlabelled case, and SFR needs one; leave one out"),
        (forgotten_label, f"{LAST}.nii.gz: is there, though case {LAST} is in imagesUl"),
        (forgotten_image, f"imagesTr/{LAST}_0001.nii.gz: is there, though case {LAST} is in imagesUl; remove one"),
        (forgotten_sidecar, f"imagesTr/{LAST}_0000.json: is there, though case {LAST} is in imagesUl; remove one"),
        (new_image, "have changed since they were planned; run sfr_plan_and_preprocess first"),
        (no_plan, "has no SFR plan; move the images to imagesTr and the labels to labelsTr by hand"),
        (damaged_splits, f"nnUNet_preprocessed/{NAME}/splits_final.json: "),
        (damaged_own_splits, f"nnUNet_raw/{NAME}/splits_final.json: "),
        (damaged_selection, "round_1_selection.json: cannot be read as JSON"),
    ],
)
def test_mistakes_are_found_before_anything_changes(
    dataset: SFRDataset, corrected: Path, mistake: Callable[[Path, Path], None], said: str
) -> None:
    mistake(corrected, dataset.paths.raw)
    before = below(dataset.paths.raw.parents[1])
    with pytest.raises(UserError) as refused:
        add(corrected)
    assert said in str(refused.value)
    assert below(dataset.paths.raw.parents[1]) == before


@pytest.mark.parametrize("changing", ["image", "label map", "spacing"])
def test_what_changes_while_it_is_checked_is_not_taken(
    changing: str, dataset: SFRDataset, corrected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = dataset.paths.raw
    file, said = {
        "image": (raw / "imagesUl" / f"{REST}_0000.nii.gz", f"{NAME}: has changed while the label maps were checked"),
        "label map": (corrected / f"{LAST}.nii.gz", f"{LAST}.nii.gz: has changed while the label maps were checked"),
        "spacing": (corrected / f"{LAST}.json", f"{LAST}.json: has changed while the label maps were checked"),
    }[changing]
    check = label_maps.check_label_maps

    def slowly(*arguments: Any, **options: Any) -> None:
        check(*arguments, **options)
        file.write_text("something else")

    monkeypatch.setattr(add_labels_module, "check_label_maps", slowly)
    before = below(raw.parents[1])
    with pytest.raises(UserError, match=said):
        add(corrected)
    changed = {name: data for name, data in below(raw.parents[1]).items() if before.get(name) != data}
    assert list(changed.values()) == [b"something else"]


def test_a_plan_that_there_is_not(dataset: SFRDataset, corrected: Path) -> None:
    with pytest.raises(UserError, match=rf"-p nnUNetPlans: {NAME} has no such SFR plan; choose from Coarse, {PLANS}"):
        add(corrected, plans="nnUNetPlans")


@pytest.mark.parametrize(
    ("hold", "program"), [(locked, "sfr_run"), (planning_locked, "sfr_plan_and_preprocess")], ids=["run", "planning"]
)
def test_nothing_changes_while_somebody_else_is_at_work(
    hold: Callable[[DatasetPaths, str], AbstractContextManager[None]],
    program: str,
    dataset: SFRDataset,
    corrected: Path,
) -> None:
    with hold(dataset.paths, f"{program} -d 42"):
        before = below(dataset.paths.raw.parents[1])
        with pytest.raises(UserError, match=rf"another {program} is at work on this data set .*{program} -d 42\)"):
            add(corrected)
        assert below(dataset.paths.raw.parents[1]) == before
    add(corrected)


def test_nothing_is_planned_while_labels_are_added(
    dataset: SFRDataset, corrected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write preprocessed cases, and would remove what the other is writing."""
    complete, refusals = add_labels_module._complete, []

    def meanwhile(journal: Journal, processes: int) -> None:
        complete(journal, processes)
        with pytest.raises(
            UserError, match=r"another sfr_add_labels is at work on this data set .*sfr_add_labels -d 42"
        ) as refused:
            plan_and_preprocess(NAME, planner="ExperimentPlannerCPU", fingerprint_processes=1, processes=1)
        refusals.append(refused.value)

    monkeypatch.setattr(add_labels_module, "_complete", meanwhile)
    add(corrected)
    assert len(refusals) == 1


def test_the_ignore_label_may_be_used(tmp_path: Path) -> None:
    """Slices that were not annotated, and a case without any foreground."""
    with nnunet_folders(tmp_path):
        labels = {"background": 0, "blob": 1, "ignore": 2}
        dataset = make_project(tmp_path, labelled=1, unlabelled=3, test=0, labels=labels)
        scribble = np.full((18, 22, 20), 2, np.uint8)
        scribble[4] = 0
        write_image(tmp_path / "corrected" / f"{FIRST}.nii.gz", scribble)
        write_image(tmp_path / "corrected" / f"{LAST}.nii.gz", np.zeros((20, 24, 22), np.uint8))
        add(tmp_path / "corrected")
        cases = nnUNetDatasetBlosc2(str(dataset.paths.labelled))
        np.testing.assert_array_equal(cases.load_case(FIRST)[1][0], scribble)
        assert not np.any(cases.load_case(LAST)[1][:])


# --- killed ----------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """Nothing catches it, and nothing is cleared away."""


class Killing:
    """Lets a number of changes to files pass; from then on the process is dead, and changes nothing any more."""

    CHANGES = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir")

    def __init__(self, patch: pytest.MonkeyPatch, changes: int) -> None:
        self.left = changes
        # up to Python 3.10, pathlib keeps what it found in os when it was imported
        for keeper in filter(None, (os, getattr(pathlib, "_normal_accessor", None))):
            for name in self.CHANGES:
                if hasattr(keeper, name):
                    patch.setattr(keeper, name, self._counted(getattr(keeper, name)))

    def _counted(self, change: Callable[..., None]) -> Callable[..., None]:
        def counted(path: Any, *arguments: Any, **options: Any) -> None:
            if ".sfr_run." not in str(path):  # the system releases the locks of the dead
                if self.left == 0:
                    raise KilledError
                self.left -= 1
            change(path, *arguments, **options)

        return counted


def killed_after(changes: int, folder: Path) -> bool:
    """Whether a call dies at the change after these, and does not come to its end before."""
    with pytest.MonkeyPatch.context() as patch:
        Killing(patch, changes)
        try:
            add(folder)
        except KilledError:
            return True
    return False


def let_seconds_pass(folder: Path) -> None:
    """Make files look older: the hash of one that was written within two seconds is not kept (FileHashes)."""
    for file in filter(Path.is_file, folder.rglob("*")):
        before = file.stat().st_mtime - 60
        os.utime(file, (before, before))


def comparable(files: dict[str, bytes]) -> dict[str, Any]:
    """What is stored in files whose bytes can differ: strings that are one object or two, chunks in any order."""
    readers: dict[str, Callable[[bytes], Any]] = {
        ".pkl": lambda data: repr(pickle.loads(data)),
        ".b2nd": lambda data: blosc2.ndarray_from_cframe(data)[:].tobytes(),
    }
    return {name: readers.get(Path(name).suffix, bytes)(data) for name, data in files.items()}


def test_a_call_killed_at_any_change_is_completed_by_the_next(template: Path, tmp_path: Path) -> None:
    """One case and one plan, which have every kind of step; each trial takes a third of a second."""
    small = tmp_path / "small"
    with project_copy(template, small) as dataset:
        for file in dataset.paths.preprocessed.glob(f"{COARSE}*"):
            file.unlink() if file.is_file() else shutil.rmtree(file)
        (small / "corrected" / f"{LAST}.nii.gz").unlink()
    let_seconds_pass(small)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with project_copy(small, undisturbed):
        add(undisturbed / "corrected")
        expected = comparable(below(undisturbed))
    changes, decided = 0, 0
    while True:
        with project_copy(small, killed) as dataset:
            if not killed_after(changes, killed / "corrected"):
                break
            if (dataset.paths.raw / FOLDER).exists():
                decided += 1
            elif decided == 0:
                left = {name: data for name, data in below(killed).items() if PARTIAL not in name}
                assert left == below(small), f"killed after {changes}: nothing had been decided"
            add(killed / "corrected")
            assert comparable(below(killed)) == expected, f"killed after {changes} changes"
        shutil.rmtree(killed)
        changes += 1
    assert comparable(below(killed)) == expected
    assert decided > 30, "label, channels, preprocessed case, stores, selection, splits, fingerprint"


def test_what_was_stopped_is_completed_first(
    dataset: SFRDataset, corrected: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the folder is another one, and is wrong."""

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(add_labels_module, "record_added_labels", killed)
        with pytest.raises(KilledError):
            add(corrected)
    assert read_journal(dataset.paths.raw) is not None
    with pytest.raises(UserError, match="sfr_add_labels was stopped before its end; run it again to complete it"):
        plan_and_preprocess(NAME, planner="ExperimentPlannerCPU", sam="vit_tiny", fingerprint_processes=1, processes=1)
    with pytest.raises(UserError, match="elsewhere: not found"):
        add(corrected.parent / "elsewhere")
    assert "an earlier sfr_add_labels was stopped; completing it first" in capsys.readouterr().out
    assert read_journal(dataset.paths.raw) is None
    own = content(dataset.paths.preprocessed / "dataset_fingerprint.json")["nnunet_sfr"]
    assert own["labels_added"]["stamp"] == list_cases(dataset.paths.raw).stamp()


def test_a_label_map_that_cannot_be_read_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = tmp_path / "case.nii.gz"
    label.write_text("voxels")

    def refuse(source: Path, _: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source))

    monkeypatch.setattr(shutil, "copy2", refuse)
    with pytest.raises(UserError, match=r"case\.nii\.gz: may not be accessed \(permission denied\)"):
        stage(tmp_path / "raw", [label])


def test_the_files_of_a_case_called_journal_are_not_taken_for_the_journal(tmp_path: Path) -> None:
    label, spacing = tmp_path / "maps" / "journal.tif", tmp_path / "maps" / "journal.json"
    label.parent.mkdir()
    label.write_text("voxels")
    spacing.write_text('{"spacing": [1, 1, 1]}')
    raw = tmp_path / "raw"
    stage(raw, [label, spacing])
    journal = Journal(
        raw, {"journal": ["journal_0000.tif"]}, ".tif", 3, "stamp", {"journal": []}, {"journal": [spacing.name]}
    )
    journal.commit()
    assert read_journal(raw) == journal
    assert journal.copy(spacing.name).read_text(encoding="utf-8") == '{"spacing": [1, 1, 1]}'
    journal.end()
    assert list(raw.iterdir()) == []


def test_the_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"a": ["a_0000.nii.gz"]}, ".nii.gz", 3, "stamp")
    (tmp_path / PARTIAL).mkdir()
    journal.commit()
    written = tmp_path / FOLDER / ".journal.json"
    written.rename(written.with_name("journal.json"))
    assert read_journal(tmp_path) == journal
    remove_remains(tmp_path)
    assert read_journal(tmp_path) == journal
    journal.end()
    assert not (tmp_path / FOLDER).exists()


# --- what is to be done again ----------------------------------------------------------------------------------------


def test_who_forgets_overwrite_is_told(
    dataset: SFRDataset, corrected: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And by hand or by sfr_run: the commands have what is needed on this machine, or what they had."""
    monkeypatch.setattr(outdated, "device_for_nnunet", lambda: "cpu")
    shutil.rmtree(dataset.paths.preprocessed / "pseudo_labels")
    fine_tune(dataset, "all", CPU)
    pseudo_label(dataset, "all", CPU, adapter="adapter_final.safetensors")
    training = dataset.paths.results / f"nnUNetTrainerSFR_MT__{PLANS}__3d_fullres" / "fold_all"
    training.mkdir(parents=True)
    (training / "checkpoint_final.pth").touch()
    state = RunState(RunPaths(NAME, PLANS, "3d_fullres", "all", "SFR_MT").state)
    for name, result, command in (
        ("fine-tune", dataset.paths.sam_stage("all"), "sfr_finetune -d Tiny -p CPU -device mps --overwrite"),
        ("train", dataset.paths.training("nnUNetTrainerSFR_MT_2epochs", "all"), "nnUNetv2_train 7 -num_gpus 2 --c"),
    ):
        state.put(name, StepRecord(portable_name(result), command, "done", {}, "2026-01-01T00:00:00"))
    dataset.paths.training("nnUNetTrainerSFR_MT_2epochs", "all").mkdir(parents=True)
    (dataset.paths.training("nnUNetTrainerSFR_MT_2epochs", "all") / "checkpoint_best.pth").touch()
    add(corrected, plans=PLANS)
    said = capsys.readouterr().out.splitlines()
    case = f"-d 42 -c 3d_fullres -f all -p {PLANS}"
    assert said[said.index("To be done again (sfr_run, called as before, does it by itself):") + 1 :] == [
        "  sfr_finetune -d Tiny -p CPU -device mps --overwrite",
        f"  sfr_pseudolabel {case} --overwrite",
        f"  nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p {PLANS} -device cpu",
        "  nnUNetv2_train 7 -num_gpus 2",
    ]
    with pytest.raises(UserError, match="made with another cases; add --overwrite to start again"):
        fine_tune(dataset, "all", CPU)
    fine_tune(dataset, "all", CPU, overwrite=True)
    with pytest.raises(UserError, match="made with another adapter_sha256; add --overwrite"):
        pseudo_label(dataset, "all", CPU, adapter="adapter_final.safetensors")
    store = pseudo_label(
        dataset, "all", CPU, adapter="adapter_final.safetensors", partition=CasePartition(overwrite=True)
    )
    assert store.identifiers() == [REST]


def test_a_cross_check_is_among_the_commands_to_repeat(
    dataset: SFRDataset, corrected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = dataset.paths
    shutil.rmtree(paths.preprocessed / "pseudo_labels")
    assert outdated.commands_to_repeat([dataset]) == []
    paths.crosschecks.mkdir(parents=True)
    command = f"sfr_crosscheck -d 42 -c 3d_fullres -p {PLANS}"
    add(corrected, plans=PLANS)
    assert capsys.readouterr().out.splitlines()[-1] == f"  {command} --overwrite"
    paths.left_out_network(0).mkdir(parents=True)
    assert outdated.commands_to_repeat([dataset])[-1] == f"  {command} --with-nnunet --overwrite"
    typed = f"{command} -device mps --with-nnunet"
    record = StepRecord(portable_name(paths.crosschecks), typed, "done", {}, "2026-01-01T00:00:00")
    RunState(RunPaths(NAME, PLANS, "3d_fullres", 0, "SFR_MT").state).put("cross-check", record)
    assert outdated.commands_to_repeat([dataset])[-1] == f"  {typed} --overwrite"


def test_the_commands_to_repeat_train_after_the_cross_check(
    dataset: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outdated, "device_for_nnunet", lambda: "cpu")
    paths = dataset.paths
    shutil.rmtree(paths.preprocessed / "pseudo_labels")
    paths.crosschecks.mkdir(parents=True)
    for fold in (0, 1):
        training = paths.training("nnUNetTrainerSFR_MT", fold)
        for folder in (paths.sam_stage(fold), training):
            folder.mkdir(parents=True)
        (training / "checkpoint_final.pth").touch()
    programs = [line.split()[0] for line in outdated.commands_to_repeat([dataset])[1:]]
    assert programs == ["sfr_finetune", "sfr_finetune", "sfr_crosscheck", "nnUNetv2_train", "nnUNetv2_train"]
