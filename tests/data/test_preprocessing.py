"""Preprocessing: nnU-Net's own arrays, for labelled and unlabelled cases, made once and never by halves."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.data import preprocessing
from nnunet_sfr.data.preprocessed_grid import check_grid
from nnunet_sfr.data.preprocessing import PreprocessingResult, copy_ground_truth, preprocess
from nnunet_sfr.data.raw_cases import RawDataset, list_cases
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.pipeline import plan_and_preprocess
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import nnunet_folders, project_copy

PLANS = "nnUNetPlansCPU"
OPTIONS: dict[str, Any] = {
    "planner": "ExperimentPlannerCPU",
    "sam": "vit_tiny",
    "fingerprint_processes": 1,
    "processes": 1,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned and preprocessed data set (two labelled, two unlabelled, resampled); tests work on copies."""
    root = tmp_path_factory.mktemp("template")
    with nnunet_folders(root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "FOREGROUND_SAMPLES", 6000)
        make_raw_dataset(root / "nnUNet_raw", labelled=2, channels=2, channel_name="CT", spacing=(1.0, 1.0, 1.0))
        plan_and_preprocess(NAME, target_spacing=(1.5, 1.0, 1.2), **OPTIONS)
    return root


@pytest.fixture
def dataset(template: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    with project_copy(template, tmp_path) as dataset:
        yield dataset


def run(dataset: SFRDataset) -> PreprocessingResult:
    return preprocess(raw(dataset), dataset.paths, dataset.plans_manager, processes=1)


def raw(dataset: SFRDataset) -> RawDataset:
    return list_cases(dataset.paths.raw)


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def properties_of(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = pickle.loads(file.read_bytes())
    return content


def copy_in_place(file: Path) -> None:
    """Give a file the time of change of a copy."""
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))


def change(file: Path) -> None:
    """Other bytes, the same voxels."""
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), compresslevel=1))


@pytest.mark.parametrize(("folder", "identifier"), [("labelled", "train_01"), ("unlabelled", "unlabelled_01")])
def test_arrays_are_nnunets(dataset: SFRDataset, folder: str, identifier: str) -> None:
    case = next(case for case in raw(dataset).cases if case.identifier == identifier)
    configuration = dataset.configuration_manager
    data, segmentation, properties = configuration.preprocessor_class(verbose=False).run_case(
        [str(file) for file in case.images],
        None if case.label is None else str(case.label),
        dataset.plans_manager,
        configuration,
        dataset.dataset_json,
    )
    # 19 x 23 x 21 voxels of 1 mm, and the coarsest axis first
    assert data.shape == (2, 13, 23, 18)
    target = getattr(dataset.paths, folder)
    assert infer_dataset_class(str(target)) is nnUNetDatasetBlosc2
    ours, our_segmentation, _, our_properties = nnUNetDatasetBlosc2(str(target)).load_case(identifier)
    np.testing.assert_array_equal(ours[:], data)
    np.testing.assert_array_equal(our_segmentation[:], segmentation)
    assert np.isin(1, segmentation) == (case.label is not None)
    assert our_properties.pop("nnunet_sfr")["inputs"][0][0] == f"{identifier}_0000.nii.gz"
    assert set(our_properties) == set(properties)
    assert our_properties["shape_before_cropping"] == properties["shape_before_cropping"]


def hidden(dataset: SFRDataset) -> list[str]:
    """What lies hidden beside the cases, but for the lock of planning, which stays."""
    preprocessed = dataset.paths.preprocessed
    return [file.name for file in preprocessed.glob(".*") if file != dataset.paths.planning_lock]


def test_nothing_but_cases_lies_in_the_folders(dataset: SFRDataset) -> None:
    assert sorted(times(dataset.paths.unlabelled)) == [
        f"unlabelled_0{index}{suffix}" for index in range(2) for suffix in (".b2nd", ".pkl", "_seg.b2nd")
    ]
    assert len(times(dataset.paths.labelled)) == 6
    assert hidden(dataset) == []


def test_a_second_run_writes_nothing(dataset: SFRDataset) -> None:
    folders = (dataset.paths.labelled, dataset.paths.unlabelled, dataset.paths.preprocessed / "gt_segmentations")
    before = [times(folder) for folder in folders]
    assert run(dataset) == PreprocessingResult(made=0, kept=4, removed=0)
    copy_ground_truth(raw(dataset), dataset.paths.preprocessed)
    assert [times(folder) for folder in folders] == before


def test_a_changed_input_is_made_again_and_nothing_else(dataset: SFRDataset) -> None:
    before = times(dataset.paths.unlabelled)
    change(dataset.paths.raw_unlabelled / "unlabelled_00_0001.nii.gz")
    change(dataset.paths.raw / "labelsTr/train_01.nii.gz")
    assert run(dataset) == PreprocessingResult(made=2, kept=2, removed=0)
    after = times(dataset.paths.unlabelled)
    assert {name for name in after if after[name] != before[name]} == {
        "unlabelled_00.b2nd",
        "unlabelled_00_seg.b2nd",
        "unlabelled_00.pkl",
    }


def test_copied_raw_data_are_the_same(dataset: SFRDataset) -> None:
    before = [times(folder) for folder in (dataset.paths.labelled, dataset.paths.unlabelled)]
    for file in dataset.paths.raw.glob("*/*.nii.gz"):
        copy_in_place(file)
    assert run(dataset) == PreprocessingResult(made=0, kept=4, removed=0)
    assert [times(folder) for folder in (dataset.paths.labelled, dataset.paths.unlabelled)] == before


def test_cases_of_earlier_versions_are_kept_while_their_files_keep_their_times(dataset: SFRDataset) -> None:
    """They recorded the time of change in the place of the hash."""
    file = dataset.paths.unlabelled / "unlabelled_00.pkl"
    properties = properties_of(file)
    images = [dataset.paths.raw_unlabelled / f"unlabelled_00_000{channel}.nii.gz" for channel in range(2)]
    properties["nnunet_sfr"]["inputs"] = [[i.name, i.stat().st_size, i.stat().st_mtime_ns] for i in images]
    file.write_bytes(pickle.dumps(properties))
    assert run(dataset).made == 0
    copy_in_place(images[0])
    assert run(dataset).made == 1
    assert run(dataset).made == 0


def break_properties(folder: Path) -> None:
    (folder / "unlabelled_01.pkl").write_bytes(b"half")


def break_data(folder: Path) -> None:
    file = folder / "unlabelled_01.b2nd"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove_segmentation(folder: Path) -> None:
    (folder / "unlabelled_01_seg.b2nd").unlink()


def replace_by_another_shape(folder: Path) -> None:
    (folder / "unlabelled_01.b2nd").unlink()
    blosc2.asarray(np.zeros((2, 3, 3, 3), np.float32), urlpath=str(folder / "unlabelled_01.b2nd"))


def forget_provenance(folder: Path) -> None:
    """As nnU-Net's own preprocessing leaves a case."""
    file = folder / "unlabelled_01.pkl"
    properties = properties_of(file)
    del properties["nnunet_sfr"]
    file.write_bytes(pickle.dumps(properties))


@pytest.mark.parametrize(
    "damage", [break_properties, break_data, remove_segmentation, replace_by_another_shape, forget_provenance]
)
def test_a_damaged_case_is_made_again(dataset: SFRDataset, damage: Any) -> None:
    sound = nnUNetDatasetBlosc2(str(dataset.paths.unlabelled)).load_case("unlabelled_01")[0][:]
    damage(dataset.paths.unlabelled)
    assert run(dataset) == PreprocessingResult(made=1, kept=3, removed=0)
    np.testing.assert_array_equal(
        nnUNetDatasetBlosc2(str(dataset.paths.unlabelled)).load_case("unlabelled_01")[0][:], sound
    )


def test_cases_that_left_the_raw_data_are_removed(dataset: SFRDataset) -> None:
    for channel in range(2):
        (dataset.paths.raw_unlabelled / f"unlabelled_01_000{channel}.nii.gz").unlink()
    (dataset.paths.labelled / "old.npz").write_text("of nnU-Net v1")
    (dataset.paths.labelled / ".DS_Store").write_text("")
    assert run(dataset) == PreprocessingResult(made=0, kept=3, removed=1)
    assert sorted(times(dataset.paths.unlabelled)) == [
        f"unlabelled_00{suffix}" for suffix in (".b2nd", ".pkl", "_seg.b2nd")
    ]
    assert infer_dataset_class(str(dataset.paths.labelled)) is nnUNetDatasetBlosc2


@pytest.mark.parametrize("step", range(6))
def test_an_interruption_leaves_no_half_case(dataset: SFRDataset, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stopped at every one of the six renames of two cases: what nnU-Net lists, it can load."""
    for index in range(2):
        change(dataset.paths.raw_unlabelled / f"unlabelled_0{index}_0000.nii.gz")
    replace, calls = os.replace, iter(range(100))

    def interrupted(source: Path, target: Path) -> None:
        if next(calls) == step:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(dataset)
    folder = str(dataset.paths.unlabelled)
    for identifier in nnUNetDatasetBlosc2.get_identifiers(folder):
        data, segmentation, _, _ = nnUNetDatasetBlosc2(folder).load_case(identifier)
        assert data.shape[1:] == segmentation.shape[1:]
    assert run(dataset) == PreprocessingResult(made=2 - step // 3, kept=2 + step // 3, removed=0)


def test_remains_of_a_killed_run_are_removed(dataset: SFRDataset) -> None:
    remains = dataset.paths.preprocessed / f".{dataset.paths.labelled.name}.partial"
    remains.mkdir()
    (remains / "train_00.b2nd").write_text("half")
    run(dataset)
    assert not remains.exists()


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "your quota of disk space is used up")]
)
def test_a_full_disk_is_one_line(number: int, said: str, dataset: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    change(dataset.paths.raw_unlabelled / "unlabelled_00_0000.nii.gz")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(nnUNetDatasetBlosc2, "save_case", full)
    with pytest.raises(UserError, match=rf"{said}; free some space and run the same command again$"):
        run(dataset)
    # the older case was not touched, and nothing temporary is left
    assert (dataset.paths.unlabelled / "unlabelled_00.b2nd").is_file()
    assert hidden(dataset) == []


def test_any_other_error_of_the_system_comes_out_as_it_is(dataset: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version raised it from itself, and followed its causes for ever."""
    change(dataset.paths.raw_unlabelled / "unlabelled_00_0000.nii.gz")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "the file")

    monkeypatch.setattr(preprocessing, "_publish", refused)
    with pytest.raises(PermissionError) as caught:
        run(dataset)
    assert caught.value.filename == "the file"
    assert hidden(dataset) == []


def test_what_cannot_be_read_back_is_said(dataset: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    change(dataset.paths.raw_unlabelled / "unlabelled_00_0000.nii.gz")
    monkeypatch.setattr(preprocessing, "_is_whole", lambda *_: False)
    with pytest.raises(UserError, match=r"of case .* cannot be read back; check the disk, and run "):
        run(dataset)


def changed_plan(dataset: SFRDataset, **values: Any) -> PlansManager:
    plans = pickle.loads(pickle.dumps(dataset.plans_manager.plans))
    plans["configurations"]["3d_fullres"].update(values)
    return PlansManager(plans)


def test_intensity_statistics_count_where_the_normalisation_uses_them(dataset: SFRDataset) -> None:
    """New labelled cases change nnU-Net's CT normalisation of every case, but not a z-score."""
    ct = changed_plan(dataset)
    ct.plans["foreground_intensity_properties_per_channel"]["1"]["mean"] += 1.0
    assert preprocess(raw(dataset), dataset.paths, ct, processes=1).made == 4

    schemes = ["ZScoreNormalization"] * 2
    zscore = changed_plan(dataset, normalization_schemes=schemes)
    assert preprocess(raw(dataset), dataset.paths, zscore, processes=1).made == 4
    zscore = changed_plan(dataset, normalization_schemes=schemes)
    zscore.plans["foreground_intensity_properties_per_channel"]["1"]["mean"] += 1.0
    assert preprocess(raw(dataset), dataset.paths, zscore, processes=1).made == 0


def test_check_grid(dataset: SFRDataset) -> None:
    data, _, _, properties = nnUNetDatasetBlosc2(str(dataset.paths.labelled)).load_case("train_00")
    check_grid(properties, data.shape, dataset.plans_manager, dataset.configuration_manager)

    coarser = changed_plan(dataset, spacing=[3.0, 1.0, 1.2])
    with pytest.raises(UserError, match=r"train_00: preprocessed to 12 x 22 x 17 .* 6 x 22 x 17: a target spacing"):
        check_grid(properties, data.shape, coarser, coarser.get_configuration("3d_fullres"), "train_00")

    other = changed_plan(dataset, normalization_schemes=["ZScoreNormalization"] * 2)
    with pytest.raises(UserError, match="preprocessed under another plan"):
        check_grid(properties, data.shape, other, other.get_configuration("3d_fullres"))


def test_worker_processes_make_the_same_arrays(dataset: SFRDataset) -> None:
    identifiers = ("unlabelled_00", "unlabelled_01")
    loaded = nnUNetDatasetBlosc2(str(dataset.paths.unlabelled))
    before = [loaded.load_case(identifier)[0][:] for identifier in identifiers]
    for identifier in identifiers:
        change(dataset.paths.raw_unlabelled / f"{identifier}_0000.nii.gz")
    result = preprocess(raw(dataset), dataset.paths, dataset.plans_manager, processes=2)
    assert result == PreprocessingResult(made=2, kept=2, removed=0)
    for identifier, expected in zip(identifiers, before, strict=True):
        np.testing.assert_array_equal(loaded.load_case(identifier)[0][:], expected)
