"""Pseudo-labels of a tiny project: what is predicted, blended, stored, resumed and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import SimpleITK
import torch
from safetensors import safe_open

from nnunet_sfr.confidence import agreement
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.export import export_pseudo_labels, to_original_grid
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.label_decision import DECISION_RULES, LARGEST_PROBABILITY
from nnunet_sfr.labelling import case_labels, filling
from nnunet_sfr.labelling.case_labels import CaseLabels, LoadedCase
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.replacement import new_folder
from nnunet_sfr.sam_stage.checkpoints import load_weights
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.intensities import AsPreprocessed, ZeroToOne
from nnunet_sfr.sam_stage.model import build_stitched_sam, for_inference, load_adapter, save_adapter
from nnunet_sfr.sam_stage.prediction import VolumePredictor
from nnunet_sfr.sam_stage.pseudo_labelling import _Predictors, _predictors, _SAMLabeller, pseudo_label
from nnunet_sfr.sam_stage.sam import StitchedSAM
from nnunet_sfr.settings import PseudoLabelSettings
from tests.tiny_project import change_settings

CPU = torch.device("cpu")


class Thresholding(torch.nn.Module):
    """A SAM whose logits depend on each voxel alone, so that blending changes nothing."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones_like(patches), patches], dim=1) * 4


class CornerOnly(torch.nn.Module):
    """Says foreground in the first voxel of every patch, background elsewhere."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, 2, *patches.shape[2:])
        logits[:, 0] = 50
        logits[:, 1, 0, 0, 0] = 100
        return logits


class Diverged(torch.nn.Module):
    """A SAM whose weights have become NaN."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 2, *patches.shape[2:]), torch.nan)


def loaded(plane: SFRDataset, adapter: Path) -> StitchedSAM:
    sam = build_stitched_sam(plane)
    load_adapter(sam, plane, adapter)
    return sam


def test_a_prediction_that_is_not_finite_names_its_case(planned: SFRDataset) -> None:
    predict = VolumePredictor(Diverged(), (20, 24, 22), PseudoLabelSettings(), CPU).probabilities
    labeller = _SAMLabeller(
        AsPreprocessed(), [_Predictors(predict, predict, [1, 2, 3])], average=True, decision=LARGEST_PROBABILITY
    )
    case = LoadedCase.open("unlabelled_01", UnlabelledDataset(planned.paths.unlabelled), planned)
    with pytest.raises(UserError, match=r"^unlabelled_01: the prediction has numbers that are not finite; did the"):
        case_labels.label_case(case, labeller, planned)


@pytest.fixture
def fine_tuned(project: SFRDataset) -> SFRDataset:
    """A project whose SAM is there (hardly trained), and whose store is empty."""
    fine_tune(project, "all", CPU)
    for file in project.paths.pseudo_labels("all").iterdir():
        file.unlink()
    return project


def label(dataset: SFRDataset, **share: Any) -> PseudoLabelStore:
    return pseudo_label(dataset, "all", CPU, adapter=FINAL_ADAPTER, partition=CasePartition(**share))


def predictor(**settings: object) -> VolumePredictor:
    return VolumePredictor(Thresholding(), (20, 24, 22), PseudoLabelSettings(**settings), CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(31, 40, 37), (20, 24, 22), (5, 7, 9), (50, 7, 22)])
@pytest.mark.parametrize("use_mirroring", [False, True])
def test_blending_keeps_what_a_local_model_says(shape: tuple[int, int, int], use_mirroring: bool) -> None:
    """Overlap, padding and cutting back change nothing in a model that looks at each voxel alone, corners included."""
    torch.manual_seed(0)
    image = torch.randn(1, *shape)
    probabilities = predictor(use_mirroring=use_mirroring).probabilities(image)
    torch.testing.assert_close(probabilities, torch.softmax(Thresholding()(image[None])[0], dim=0))


def test_patches_overlap_and_the_gaussian_prefers_centres() -> None:
    class FirstSliceOnly(torch.nn.Module):
        """Says foreground in the first slice of every patch, background elsewhere."""

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(1, 2, *patches.shape[2:])
            logits[:, 0] = 50
            logits[:, 1, 0] = 100
            return logits

    model = VolumePredictor(FirstSliceOnly(), (20, 24, 22), PseudoLabelSettings(), CPU)
    foreground = model.probabilities(torch.zeros(1, 30, 24, 22))[1, :, 12, 11]
    # patches start at slices 0 and 10; at slice 10 the first patch's centre outweighs the second's border
    assert foreground[0] == pytest.approx(1.0)
    centre, border = 1.0, np.exp(-0.5 * (10 / (20 / 8)) ** 2)
    assert foreground[10] == pytest.approx(border / (centre + border), rel=0.1)
    assert foreground[5] == pytest.approx(0.0, abs=1e-6)


def test_mirroring_averages_over_all_eight() -> None:
    model = VolumePredictor(CornerOnly(), (20, 24, 22), PseudoLabelSettings(use_mirroring=True), CPU)
    foreground = model.probabilities(torch.zeros(1, 20, 24, 22))[1]
    corners = foreground[::19, ::23, ::21]
    torch.testing.assert_close(corners, torch.full((2, 2, 2), 1 / 8))
    assert foreground.sum() == pytest.approx(1.0, abs=1e-4)


def test_mirror_images_are_mirrored_back_and_not_averaged() -> None:
    averaged, plain = (
        VolumePredictor(CornerOnly(), (20, 24, 1), PseudoLabelSettings(use_mirroring=mirroring), CPU).probabilities
        for mirroring in (True, False)
    )
    labeller = _SAMLabeller(
        AsPreprocessed(), [_Predictors(averaged, plain, [1, 2])], average=True, decision=LARGEST_PROBABILITY
    )
    empty = np.zeros((1, 20, 24, 1), np.float32)
    case = LoadedCase("case", empty, empty, {})
    predictions = list(labeller.case_probabilities(case, mirrored=True))
    views = [prediction.probabilities for prediction in predictions]
    assert len(views) == 1 + 2, "the third axis is one voxel long"
    corners = [view[1][::19, ::23, 0].round(decimals=3).tolist() for view in views]
    assert corners == [[[0.25, 0.25], [0.25, 0.25]], [[0, 0], [1, 0]], [[0, 1], [0, 0]]]
    assert len(list(labeller.case_probabilities(case, mirrored=False))) == 1


def test_sam_sees_black_outside_the_mask_in_mirrored_images_too() -> None:
    """nnU-Net leaves 0 there, which lies in the middle of the values inside."""
    image = np.zeros((1, 4, 5, 6), np.float32)
    image[0, :2] = np.linspace(-1, 1, 60).reshape(2, 5, 6)
    mask = np.full(image.shape, -1, np.int8)
    mask[0, :2] = 0
    seen: list[torch.Tensor] = []

    def predict(volume: torch.Tensor) -> torch.Tensor:
        seen.append(volume)
        return volume

    labeller = _SAMLabeller(
        ZeroToOne((None,), masked=(0,)), [_Predictors(predict, predict, [1])], average=True, decision=""
    )
    list(labeller.case_probabilities(LoadedCase("case", image, mask, {}), mirrored=True))
    assert len(seen) == 2
    for volume in (seen[0], torch.flip(seen[1], (1,))):
        assert torch.equal(volume[0, 2:], torch.zeros(2, 5, 6))
        assert volume[0, :2].median() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("fixture", "reads"), [("project", 0), ("pretrained_project", 1)], ids=["own", "shared"])
def test_each_axis_has_a_sam_of_its_own(fixture: str, reads: int, request: pytest.FixtureRequest) -> None:
    """Labels are decided by the mean over the axes; another adapter of either is another maker of labels.

    A frozen encoder is read once, and shared.
    """
    project: SFRDataset = request.getfixturevalue(fixture)
    change_settings(project, {"stitching": {"slice_axes": [1, 0]}})
    dataset = open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)
    folder = fine_tune(dataset, "all", CPU)
    adapters = [folder / FINAL_ADAPTER, folder.parent / "across_0" / folder.name / FINAL_ADAPTER]
    axes = [safe_open(file, framework="pt").metadata()["slice_axis"] for file in adapters]
    assert axes == ["1", "0"]

    with mock.patch("nnunet_sfr.sam_stage.model.load_weights", wraps=load_weights) as reading:
        store = label(dataset, overwrite=True)
    assert reading.call_count == reads
    assert store.manifest["made_by"]["adapter_sha256"] == ",".join(map(file_hash, adapters))
    image = torch.from_numpy(UnlabelledDataset(dataset.paths.unlabelled).load_case("unlabelled_00")[0][:])
    predictors = [
        _predictors(for_inference(loaded(plane, file)), dataset, CPU).plain
        for plane, file in zip(dataset.planes, adapters, strict=True)
    ]
    mirrorings = [(), (1,), (2,), (3,)]
    members = [torch.flip(predictor(torch.flip(image, axes)), axes) for predictor in predictors for axes in mirrorings]
    decide = DECISION_RULES[dataset.settings.pseudo_labels.decision].decide
    expected = decide(torch.stack(members).mean(dim=0)).numpy()
    np.testing.assert_array_equal(np.maximum(store.read_labels("unlabelled_00")[0], 0), expected)
    each = [decide(torch.stack(members[start : start + 4]).mean(dim=0)) for start in (0, 4)]
    assert store.read_confidence("unlabelled_00")["plane_agreement"] == agreement(*each, num_classes=2)

    adapters[1].unlink()
    with pytest.raises(UserError, match=r"across_0.*not found; run sfr_finetune first"):
        label(dataset)


def test_every_case_is_labelled_once(fine_tuned: SFRDataset) -> None:
    store = label(fine_tuned)
    assert store.identifiers() == ["unlabelled_00", "unlabelled_01"]
    record = store.read_confidence("unlabelled_00")
    assert 0.5 <= record["mean_max_probability"] <= 1.0
    assert sum(record["class_voxels"].values()) == store.read_labels("unlabelled_00").size
    assert len(store.manifest["made_by"]["adapter_sha256"]) == 64

    with mock.patch.object(filling, "label_case", side_effect=AssertionError("nothing is left to do")):
        label(fine_tuned)


def test_overwriting_keeps_the_labels_until_all_new_ones_are_there(
    fine_tuned: SFRDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted, the next call continues with the second case, and the first store stays where it is."""
    earlier = label(fine_tuned)
    before = {file.name: file.read_bytes() for file in earlier.folder.iterdir() if file.is_file()}
    undisturbed = {case: earlier.read_labels(case) for case in ("unlabelled_00", "unlabelled_01")}
    label_case = case_labels.label_case

    def die_at_the_second(case: LoadedCase, *rest: Any, **options: Any) -> CaseLabels:
        if case.identifier == "unlabelled_01":
            raise KeyboardInterrupt
        return label_case(case, *rest, **options)

    with (
        mock.patch.object(filling, "label_case", side_effect=die_at_the_second),
        pytest.raises(KeyboardInterrupt),
    ):
        label(fine_tuned, overwrite=True)
    assert f"the labels in {earlier.folder} stay until all new ones are there" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in earlier.folder.iterdir() if file.is_file()} == before
    assert "2 of 2 cases are there already" in (label(fine_tuned), capsys.readouterr().out)[1]
    made = {file.name: file.stat().st_mtime_ns for file in new_folder(earlier.folder).iterdir()}
    assert "unlabelled_00.json" in made

    store = label(fine_tuned, overwrite=True)
    assert "1 of 2 cases are there already" in capsys.readouterr().out
    assert store.folder == earlier.folder
    assert (store.folder / "unlabelled_00.json").stat().st_mtime_ns == made["unlabelled_00.json"]
    assert [file.name for file in store.folder.parent.iterdir()] == [store.folder.name]
    assert store.identifiers() == ["unlabelled_00", "unlabelled_01"]
    for case, labels in undisturbed.items():
        np.testing.assert_array_equal(store.read_labels(case), labels)


def test_a_new_store_of_another_maker_is_not_continued(fine_tuned: SFRDataset) -> None:
    folder = label(fine_tuned).folder
    other = Provenance(source="sam", fold="all", round_index=0, adapter_sha256="b" * 64)
    begun = PseudoLabelStore.create(new_folder(folder), grid=fine_tuned.grid, made_by=other)
    (begun.folder / "left.json").write_text("{}")
    store = label(fine_tuned, overwrite=True)
    assert store.identifiers() == ["unlabelled_00", "unlabelled_01"]
    assert not (store.folder / "left.json").exists()


def test_parts_share_the_cases(fine_tuned: SFRDataset) -> None:
    assert label(fine_tuned, num_parts=2, part_id=1).identifiers() == ["unlabelled_01"]
    assert label(fine_tuned, num_parts=2, part_id=0).identifiers() == ["unlabelled_00", "unlabelled_01"]
    with pytest.raises(UserError, match="would replace other parts' work; move the folder away"):
        label(fine_tuned, num_parts=2, part_id=0, overwrite=True)


def test_a_new_adapter_is_refused_without_overwrite(fine_tuned: SFRDataset) -> None:
    label(fine_tuned)
    adapter = fine_tuned.paths.sam_stage("all") / FINAL_ADAPTER
    model = build_stitched_sam(fine_tuned)
    save_adapter(model, fine_tuned, adapter)  # other weights
    with pytest.raises(UserError, match="made with another adapter_sha256; add --overwrite to replace them"):
        label(fine_tuned)
    assert label(fine_tuned, overwrite=True).identifiers() == ["unlabelled_00", "unlabelled_01"]


def test_export_lies_on_the_original_grid(project: SFRDataset, tmp_path: Path) -> None:
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    export_pseudo_labels(store, project, tmp_path / "export")
    for identifier in store.identifiers():
        image = SimpleITK.ReadImage(str(project.paths.raw_unlabelled / f"{identifier}_0000.nii.gz"))
        labels = SimpleITK.ReadImage(str(tmp_path / "export" / f"{identifier}.nii.gz"))
        assert labels.GetSize() == image.GetSize()
        assert labels.GetSpacing() == image.GetSpacing()
        assert labels.GetOrigin() == image.GetOrigin()
        # spacing is unchanged and nothing is cropped here, so the label map itself must come back
        np.testing.assert_array_equal(
            SimpleITK.GetArrayFromImage(labels), np.maximum(store.read_labels(identifier)[0], 0)
        )


def test_export_undoes_crop_and_transposition(project: SFRDataset) -> None:
    labels = (np.arange(4 * 5 * 6).reshape(1, 4, 5, 6) % 3 - 1).astype(np.int8)
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_after_cropping_and_before_resampling": (4, 5, 6),
        "shape_before_cropping": (6, 8, 10),
        "bbox_used_for_cropping": [[1, 5], [2, 7], [3, 9]],
    }
    project.plans_manager.plans["transpose_forward"] = [2, 0, 1]
    project.plans_manager.plans["transpose_backward"] = [1, 2, 0]
    original = to_original_grid(labels, properties, project)
    expected = np.zeros((6, 8, 10), dtype=np.uint8)
    expected[1:5, 2:7, 3:9] = np.maximum(labels[0], 0)
    np.testing.assert_array_equal(original, expected.transpose(1, 2, 0))
    # nnU-Net's preprocessing would transpose it forward again
    np.testing.assert_array_equal(original.transpose(2, 0, 1), expected)
