"""Trained nnU-Net models as the source of pseudo-labels: their voxels, on any plan, and every model that is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_sfr.data.datasets import PseudoLabelledDataset, UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling import case_labels, filling
from nnunet_sfr.labelling.case_labels import CaseLabels, LoadedCase
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.labelling.from_model import label_from_model
from tests.tiny_dataset import BACKGROUND, BLOB, NAME, NOISE, make_raw_dataset, write_case
from tests.tiny_model import CHECKPOINT, CPU, random_model, threshold_model, thresholding
from tests.tiny_project import PLANS, change_settings, make_project, nnunet_folders, plan_project, project_copy

CASES = ["unlabelled_00", "unlabelled_01"]


@pytest.fixture
def unlabelled(project: SFRDataset) -> SFRDataset:
    """The project without a store."""
    shutil.rmtree(project.paths.pseudo_labels("all"))
    return project


def label(dataset: SFRDataset, model: Path, **options: Any) -> PseudoLabelStore:
    of_model = {name: options.pop(name) for name in ("model_folds", "checkpoint", "trust") if name in options}
    return label_from_model(dataset, "all", CPU, model_folder=model, partition=CasePartition(**options), **of_model)


def nnunet_labels(dataset: SFRDataset, model: Path, case: str, *folds: int | str, mirror: bool = False) -> np.ndarray:
    """What nnU-Net's predictor gives for our preprocessed image: (1, D, H, W)."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds or ("all",), CHECKPOINT)
    image, _, _, _ = UnlabelledDataset(dataset.paths.unlabelled).load_case(case)
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image[:]))
    labels: np.ndarray = predictor.label_manager.convert_logits_to_segmentation(logits).numpy()[None]
    assert len(np.unique(labels)) > 1, "a model that says the same of every voxel would prove nothing"
    return labels


# --- a model of the same plan ----------------------------------------------------------------------------------------


def test_the_voxels_are_nnunets(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled)
    store = label(unlabelled, model)
    assert store.folder == unlabelled.paths.pseudo_labels("all")
    assert store.identifiers() == CASES
    for case in CASES:
        np.testing.assert_array_equal(store.read_labels(case), nnunet_labels(unlabelled, model, case))
        assert 0.5 < store.read_confidence(case)["mean_max_probability"] < 1
    # the trainers take it like any other
    assert PseudoLabelledDataset(unlabelled.paths.unlabelled, store).identifiers == CASES


@pytest.mark.parametrize(
    ("configuration", "options"),
    [
        ("2d", {"shape": (10, 40, 36)}),
        ("3d_fullres", {"channels": 2, "classes": 2, "labels": {"background": 0, "whole": [1, 2], "core": 2}}),
    ],
    ids=["2d", "regions_and_two_channels"],
)
def test_every_kind_of_model(configuration: str, options: dict[str, Any], tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, configuration, **options)
        model = random_model(dataset)
        store = label(dataset, model)
        for case in CASES:
            np.testing.assert_array_equal(store.read_labels(case), nnunet_labels(dataset, model, case))


def test_folds_are_averaged(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled, 0, 1)
    both = label(unlabelled, model)
    assert sorted(both.manifest["made_by"]["checkpoints"]) == ["fold_0", "fold_1"]
    average = both.read_labels(CASES[0])
    np.testing.assert_array_equal(average, nnunet_labels(unlabelled, model, CASES[0], 0, 1))
    with pytest.raises(UserError, match="made with another checkpoints; add --overwrite"):
        label(unlabelled, model, model_folds=[1])
    single = label(unlabelled, model, model_folds=[1], overwrite=True).read_labels(CASES[0])
    np.testing.assert_array_equal(single, nnunet_labels(unlabelled, model, CASES[0], 1))
    assert (single != average).any()


def test_mirroring_is_the_sfr_plans_choice(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled)
    file = model / "fold_all" / CHECKPOINT
    checkpoint = torch.load(file, weights_only=False)
    torch.save({**checkpoint, "inference_allowed_mirroring_axes": (1,)}, file)
    straight = label(unlabelled, model).read_labels(CASES[0])
    change_settings(unlabelled, {"pseudo_labels": {"use_mirroring": True}})
    dataset = open_dataset(NAME, "3d_fullres", PLANS)
    with pytest.raises(UserError, match="made with another pseudo_labels"):
        label(dataset, model)
    mirrored = label(dataset, model, overwrite=True).read_labels(CASES[0])
    np.testing.assert_array_equal(mirrored, nnunet_labels(dataset, model, CASES[0], mirror=True))
    assert (mirrored != straight).any()


def test_an_interrupted_run_goes_on(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled)
    earlier = label(unlabelled, model)
    undisturbed = {case: earlier.read_labels(case) for case in CASES}
    shutil.rmtree(earlier.folder)
    label_case = case_labels.label_case

    def die_at_the_second(case: LoadedCase, *rest: Any, **options: Any) -> CaseLabels:
        if case.identifier == CASES[1]:
            raise KeyboardInterrupt
        return label_case(case, *rest, **options)

    with (
        mock.patch.object(filling, "label_case", side_effect=die_at_the_second),
        pytest.raises(KeyboardInterrupt),
    ):
        label(unlabelled, model)
    first = unlabelled.paths.pseudo_labels("all") / f"{CASES[0]}.json"
    before = first.stat().st_mtime_ns
    store = label(unlabelled, model)
    assert first.stat().st_mtime_ns == before
    for case, labels in undisturbed.items():
        np.testing.assert_array_equal(store.read_labels(case), labels)


def test_parts_share_the_cases(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled)
    assert label(unlabelled, model, num_parts=2, part_id=1).identifiers() == CASES[1:]
    assert label(unlabelled, model, num_parts=2, part_id=0).identifiers() == CASES


# --- models of other plans -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asymmetric_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose own plan transposes, and whose unlabelled images look different from every side."""
    root = tmp_path_factory.mktemp("asymmetric")
    with nnunet_folders(root):
        options: dict[str, Any] = {"channels": 2, "shape": (30, 28, 14), "spacing": (1.0, 1.0, 2.0)}
        make_raw_dataset(root / "nnUNet_raw", unlabelled=1, **options)
        rng = np.random.default_rng(1)
        truth = asymmetric_label()
        images = np.full((2, *truth.shape), BACKGROUND, np.float32)
        images[1] += (BLOB - BACKGROUND) * truth
        images += NOISE * rng.standard_normal(images.shape)
        images[:, :4] = 0  # cropped away
        images[:, -1] = 0
        write_case(root / "nnUNet_raw" / NAME, CASES[0], images, None, suffix="Ul", spacing=options["spacing"])
        plan_project()
    return root


def asymmetric_label() -> np.ndarray:
    """A foot, a leg and an arm of different lengths."""
    truth = np.zeros((32, 28, 14), np.uint8)
    truth[8:26, 5:10, 3:6] = 1
    truth[8:13, 5:23, 3:6] = 1
    truth[8:13, 5:10, 3:11] = 1
    return truth


@pytest.fixture
def asymmetric(asymmetric_root: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    with project_copy(asymmetric_root, tmp_path) as dataset:
        yield dataset


def other_plan(dataset: SFRDataset, transpose_forward: list[int], spacing: list[float]) -> dict[str, Any]:
    plans: dict[str, Any] = json.loads(dataset.paths.plans_file.read_text(encoding="utf-8"))
    plans["transpose_forward"] = transpose_forward
    plans["transpose_backward"] = [transpose_forward.index(axis) for axis in range(3)]
    plans["configurations"]["3d_fullres"].update(spacing=spacing, patch_size=[16, 16, 16])
    return plans


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def expected_on_our_grid(dataset: SFRDataset) -> np.ndarray:
    """The truth on the preprocessed grid, which is only cropped and transposed: spacings are the original's."""
    assert dataset.plans_manager.transpose_forward == [2, 0, 1]
    assert dataset.configuration_manager.spacing == [2.0, 1.0, 1.0]
    return asymmetric_label()[4:-1].transpose(2, 0, 1).astype(bool)


@pytest.mark.parametrize(
    ("transpose", "spacing", "least"),
    [
        ([2, 0, 1], [2.0, 1.0, 1.0], 0.99),  # ours
        ([0, 1, 2], [1.0, 1.0, 2.0], 0.99),  # other axes alone
        ([2, 0, 1], [1.7, 1.3, 0.8], 0.98),  # another spacing alone
        ([1, 2, 0], [1.3, 1.7, 0.8], 0.98),  # both
        ([0, 2, 1], [0.9, 4.0, 0.9], 0.8),  # so anisotropic that nnU-Net resamples slice by slice
    ],
)
def test_a_model_of_another_plan(
    asymmetric: SFRDataset, tmp_path: Path, transpose: list[int], spacing: list[float], least: float
) -> None:
    plans = other_plan(asymmetric, transpose, spacing)
    model = threshold_model(tmp_path / "model", plans, asymmetric.dataset_json)
    expected = expected_on_our_grid(asymmetric)
    with thresholding():
        labels = label(asymmetric, model).read_labels(CASES[0])[0]
    assert labels.shape == expected.shape
    assert dice(labels == 1, expected) > least
    for turned in (expected[::-1], expected[:, ::-1], expected[:, :, ::-1], expected[::-1, ::-1, ::-1]):
        assert dice(turned, expected) < 0.5, "the truth must tell one side from the other"


def test_a_2d_model_labels_for_a_3d_training(asymmetric: SFRDataset, tmp_path: Path) -> None:
    plans = other_plan(asymmetric, [1, 2, 0], [1.0, 1.0, 1.0])
    in_plane = {"spacing": [1.6, 1.2], "patch_size": [16, 16]}
    plans["configurations"]["2d"] = {**plans["configurations"]["3d_fullres"], **in_plane}
    model = threshold_model(tmp_path / "model", plans, asymmetric.dataset_json, "2d")
    with thresholding():
        labels = label(asymmetric, model).read_labels(CASES[0])[0]
    assert dice(labels == 1, expected_on_our_grid(asymmetric)) > 0.95


@pytest.mark.parametrize(
    ("transpose", "configuration", "expected"),
    [
        # of the original's axes (0, 1, 2), whose spacing is 1, 1, 2 mm, ours are (2, 0, 1)
        ([1, 2, 0], "3d_fullres", [1.7, 0.8, 1.3]),
        ([1, 2, 0], "2d", [1.7, 0.8, 1.0]),
        ([2, 1, 0], "2d", [2.0, 0.8, 1.7]),
    ],
)
def test_nnunets_resampling_is_told_the_spacings_in_our_order(
    asymmetric: SFRDataset, tmp_path: Path, transpose: list[int], configuration: str, expected: list[float]
) -> None:
    """They decide whether nnU-Net resamples slice by slice."""
    told: list[Any] = []

    def resample(logits: np.ndarray, shape: Any, current: Any, new: Any) -> np.ndarray:
        told.append((list(current), list(new)))
        return np.zeros((len(logits), *shape), np.float32)

    plans = other_plan(asymmetric, transpose, [1.3, 1.7, 0.8])
    in_plane = {"spacing": [1.7, 0.8], "patch_size": [16, 16]}
    plans["configurations"]["2d"] = {**plans["configurations"]["3d_fullres"], **in_plane}
    model = threshold_model(tmp_path / "model", plans, asymmetric.dataset_json, configuration)
    with (
        thresholding(),
        mock.patch.object(ConfigurationManager, "resampling_fn_probabilities", property(lambda _: resample)),
    ):
        label(asymmetric, model)
    assert told == [(expected, [2.0, 1.0, 1.0])]


def test_regions_and_the_confidence_of_a_resampled_model(tmp_path: Path) -> None:
    meaning: dict[str, Any] = {"background": 0, "whole": [1, 2], "core": 2}
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, classes=2, labels=meaning, unlabelled=1)
        model = threshold_model(tmp_path / "model", other_plan(dataset, [1, 0, 2], [0.8] * 3), dataset.dataset_json)
        with thresholding(2, regions=True):
            store = label(dataset, model)
        image, _, _, _ = UnlabelledDataset(dataset.paths.unlabelled).load_case(CASES[0])
        labels = store.read_labels(CASES[0])[0]
        assert dice(labels > 0, image[0] > 1) > 0.85
        assert dice(labels == 2, image[0] > 1.5) > 0.75
        assert 0.25 < store.read_confidence(CASES[0])["mean_max_probability"] <= 1


def test_a_reader_that_turns_images_is_refused_where_it_does(asymmetric: SFRDataset, tmp_path: Path) -> None:
    plans = {**other_plan(asymmetric, [2, 0, 1], [2.0, 1.0, 1.0]), "image_reader_writer": "SimpleITKIOWithReorient"}
    model = threshold_model(tmp_path / "model", plans, asymmetric.dataset_json)
    with thresholding(), pytest.raises(UserError, match="SimpleITKIOWithReorient turns this image otherwise"):
        label(asymmetric, model)
    # the other NIfTI reader gives the same voxels
    plans["image_reader_writer"] = "NibabelIO"
    model = threshold_model(tmp_path / "other", plans, asymmetric.dataset_json)
    with thresholding():
        labels = label(asymmetric, model, overwrite=True).read_labels(CASES[0])[0]
    assert dice(labels == 1, expected_on_our_grid(asymmetric)) > 0.99


# --- refusals --------------------------------------------------------------------------------------------------------


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}))


Break = Callable[[Path], object]
MISTAKES: dict[str, tuple[Break, str]] = {
    "no folder": (shutil.rmtree, r"dataset\.json: not found; name a trained model's folder, <Trainer>__<Plans>"),
    "a fold's folder": (lambda model: (model / "plans.json").unlink(), r"plans\.json: not found; name a trained"),
    "not nnU-Net's": (lambda model: (model / "dataset.json").write_text("{}"), r"dataset\.json: is not nnU-Net's"),
    "no checkpoint": (
        lambda model: (model / "fold_all" / CHECKPOINT).unlink(),
        r"no fold has a checkpoint_final\.pth; train the model first, or choose --model-checkpoint",
    ),
    "broken checkpoint": (
        lambda model: (model / "fold_all" / CHECKPOINT).write_bytes(b"nothing"),
        r"nnU-Net cannot load checkpoint_final\.pth of fold all",
    ),
    "unknown trainer": (
        lambda model: retouch(model, trainer_name="nnUNetTrainerOfSomeoneElse"),
        "cannot load .*Could not find requested nnunet trainer nnUNetTrainerOfSomeoneElse",
    ),
    "weights of another network": (lambda model: retouch(model, network_weights={}), "cannot load .*Missing key"),
    "code in the checkpoint": (
        lambda model: retouch(model, optimizer_state=RunsCode()),
        r"fold_all/checkpoint_final\.pth: holds (posix|nt)\.mkdir, which nnU-Net does not write; loading it could run "
        "any code; add --trust if you know who made this model",
    ),
    "types of somebody else": (
        lambda model: retouch(model, settings=Path("settings")),
        r"holds pathlib\.\S+, which nnU-Net does not write",
    ),
    "a network of somebody else": (
        lambda model: rename_network(model, "subprocess.Popen"),
        r"plans\.json: wants subprocess\.Popen to be imported, which is not nnU-Net's; add --trust",
    ),
    "other label values": (
        lambda model: edit(model / "dataset.json", labels={"background": 0, "class_1": 1, "class_2": 2}),
        r"dataset\.json: the model's labels are .*class_2.*, those of this data set",
    ),
    "other label names": (
        lambda model: edit(model / "dataset.json", labels={"background": 0, "liver": 1}),
        r"the model's labels are .*liver",
    ),
    "other channels": (
        lambda model: edit(model / "dataset.json", channel_names={"0": "CT"}),
        "the model's channels are CT, those of this data set MRI",
    ),
    "more channels": (
        lambda model: edit(model / "dataset.json", channel_names={"0": "MRI", "1": "MRI"}),
        "the model's channels are MRI, MRI, those of this data set MRI",
    ),
}


MARK = Path("code_was_run")


class RunsCode:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(MARK),)


def rename_network(model: Path, name: str) -> None:
    plans = json.loads((model / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = name
    (model / "plans.json").write_text(json.dumps(plans))


def retouch(model: Path, **changes: Any) -> None:
    file = model / "fold_all" / CHECKPOINT
    torch.save({**torch.load(file, weights_only=False), **changes}, file)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda name: name.replace(" ", "_"))
def test_models_that_are_refused(mistake: str, unlabelled: SFRDataset) -> None:
    break_it, said = MISTAKES[mistake]
    model = random_model(unlabelled)
    break_it(model)
    with pytest.raises(UserError, match=said):
        label(unlabelled, model)
    assert not unlabelled.paths.pseudo_labels("all").exists()
    assert not MARK.exists()


def test_a_model_that_is_trusted_may_hold_anything(
    unlabelled: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = random_model(unlabelled)
    expected = {case: label(unlabelled, model).read_labels(case) for case in CASES}
    retouch(model, settings=RunsCode())
    store = label(unlabelled, model, trust=True, overwrite=True)
    assert MARK.is_dir()
    for case, labels in expected.items():
        np.testing.assert_array_equal(store.read_labels(case), labels)


def test_numbers_of_numpy_are_nnunets_own(unlabelled: SFRDataset) -> None:
    """nnU-Net's log holds them, by the names that numpy 1 and numpy 2 give them."""
    model = random_model(unlabelled)
    numbers = [
        np.float32(0.5),
        np.float64(0.5),
        np.int64(3),
        np.bool_(True),
        np.arange(3),
        np.zeros((2, 2), np.float32),
    ]
    retouch(model, logging={"mean_fg_dice": numbers})
    file = model / "fold_all" / CHECKPOINT
    assert label(unlabelled, model).identifiers() == CASES
    other = b"numpy.core.multiarray" if b"numpy._core.multiarray" in file.read_bytes() else b"numpy._core.multiarray"
    rename_in_pickle(file, other)
    if find_spec("numpy._core") is None:  # nnU-Net itself cannot load what numpy 2 wrote
        with pytest.raises(UserError, match="nnU-Net cannot load"):
            label(unlabelled, model, overwrite=True)
        return
    assert label(unlabelled, model, overwrite=True).identifiers() == CASES


def rename_in_pickle(file: Path, module: bytes) -> None:
    """Write a checkpoint whose numbers of numpy come from a module of another name."""
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    pickle_file = next(name for name in content if name.endswith("data.pkl"))
    content[pickle_file] = re.sub(rb"c(numpy\._?core\.multiarray)\n", b"c" + module + b"\n", content[pickle_file])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_folds_and_checkpoints_that_are_not_there(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled, 0, 3)
    with pytest.raises(UserError, match=r"fold_1/checkpoint_final\.pth: not found; choose --model-folds among 0, 3"):
        label(unlabelled, model, model_folds=[0, 1])
    with pytest.raises(UserError, match=r"no fold has a checkpoint_best\.pth"):
        label(unlabelled, model, checkpoint="checkpoint_best.pth")


def test_the_second_stage_of_a_cascade(unlabelled: SFRDataset, tmp_path: Path) -> None:
    plans = json.loads(unlabelled.paths.plans_file.read_text(encoding="utf-8"))
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    model = threshold_model(tmp_path / "model", plans, unlabelled.dataset_json, "3d_cascade_fullres")
    with thresholding(), pytest.raises(UserError, match=r"is the second stage of a cascade.*use 3d_lowres"):
        label(unlabelled, model)


def test_an_ignore_label_is_no_difference(tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, classes=2, labels={"background": 0, "blob": 1, "ignore": 2})
        model = random_model(dataset)
        edit(model / "dataset.json", labels={"blob": 1, "background": 0})
        assert label(dataset, model).identifiers() == CASES


def test_raw_images_have_to_be_those_that_were_preprocessed(unlabelled: SFRDataset) -> None:
    model = random_model(unlabelled)
    image = unlabelled.paths.raw_unlabelled / f"{CASES[1]}_0000.nii.gz"
    content = SimpleITK.ReadImage(str(image))
    SimpleITK.WriteImage(content + 1, str(image))
    with pytest.raises(UserError, match="changed since case unlabelled_01 was preprocessed; run sfr_plan_and"):
        label(unlabelled, model)
    image.unlink()
    with pytest.raises(UserError, match="imagesUl: the image of case unlabelled_01 is missing; put it back"):
        label(unlabelled, model)
    shutil.rmtree(unlabelled.paths.raw_unlabelled)
    with pytest.raises(UserError, match="imagesUl: not found"):
        label(unlabelled, model)
    assert not unlabelled.paths.pseudo_labels("all").exists()


def test_a_fold_that_no_training_has(unlabelled: SFRDataset) -> None:
    with pytest.raises(UserError, match="fold 7 does not exist"):
        label_from_model(unlabelled, 7, CPU, model_folder=random_model(unlabelled))


def test_a_store_of_another_source_is_refused(project: SFRDataset) -> None:
    with pytest.raises(UserError, match="holds pseudo-labels made with another source; add --overwrite to replace"):
        label(project, random_model(project))
    assert label(project, random_model(project), overwrite=True).made_by.source == "model"
