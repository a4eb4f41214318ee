"""What is stored of a prediction: classes or regions, the mask, the confidence; and the summary of a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.confidence import no_confidence
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.common import label_pool, store_prediction, summarise
from tests.tiny_project import make_project, nnunet_folders

CASE = "unlabelled_00"


class HalfAndHalf:
    """Foreground in the first half of the slices; counts what it was asked."""

    def __init__(self, *, regions: bool = False, average: bool = False) -> None:
        self.regions = regions
        self.average = average
        self.asked: list[str] = []

    def case_probabilities(
        self, identifier: str, image: Any, properties: Mapping[str, Any], *, mirrored: bool
    ) -> Iterator[torch.Tensor]:
        self.asked.append(identifier)
        foreground = torch.full(image.shape[1:], 0.2)
        foreground[: image.shape[1] // 2] = 0.9
        probabilities = foreground[None] if self.regions else torch.stack([1 - foreground, foreground])
        yield probabilities
        if mirrored:  # it says the same of the mirrored image, whatever it shows, and so the opposite of this one
            yield from (torch.flip(probabilities, (axis,)) for axis in (1, 2))


def empty_store(dataset: SFRDataset, folder: Path) -> PseudoLabelStore:
    return PseudoLabelStore.create(folder, grid=dataset.grid, made_by={"source": "test"})


def test_labels_are_decided_by_the_mean_over_mirrored_images(project: SFRDataset, tmp_path: Path) -> None:
    """Foreground has 0.9 in one half of the slices and 0.2 in the other; mirrored once along them and once not.

    The mean of the three is (0.9 + 0.2 + 0.9) / 3 = 0.667 in the first half and 0.433 in the second.
    """
    store = empty_store(project, tmp_path / "store")
    label_pool(store, project, HalfAndHalf(average=True), [CASE], mirrored=True)
    record = store.read_confidence(CASE)
    assert record["foreground_mean_max_probability"] == pytest.approx(2 / 3)
    assert (store.read_labels(CASE)[:, :9] == 1).all()
    assert (store.read_labels(CASE)[:, 9:] == 0).all()
    # two of three single predictions are the mean's label map, the third is its mirror image
    assert record["flip_agreement"] == pytest.approx(2 / 3)


def test_only_cases_that_are_missing_are_labelled(project: SFRDataset, tmp_path: Path) -> None:
    store, labeller = empty_store(project, tmp_path / "store"), HalfAndHalf()
    label_pool(store, project, labeller, ["unlabelled_01"])
    assert store.identifiers() == ["unlabelled_01"]
    label_pool(store, project, labeller, ["unlabelled_00", "unlabelled_01"])
    assert labeller.asked == ["unlabelled_01", "unlabelled_00"]
    labels = store.read_labels(CASE)
    assert labels.shape == (1, 18, 22, 20)
    assert (labels[:, :9] == 1).all()
    assert (labels[:, 9:] == 0).all()
    record = store.read_confidence(CASE)
    assert record["foreground_mean_max_probability"] == pytest.approx(0.9)
    assert record["mean_max_probability"] == pytest.approx(0.85)


def test_a_case_of_another_image_is_labelled_anew(project: SFRDataset, tmp_path: Path) -> None:
    store, labeller = empty_store(project, tmp_path / "store"), HalfAndHalf()
    label_pool(store, project, labeller, [CASE])
    record = store.folder / f"{CASE}.json"
    text = record.read_text()
    assert '"input": "' in text
    record.write_text(text.replace('"input": "', '"input": "another '))
    label_pool(store, project, labeller, [CASE])
    assert labeller.asked == [CASE, CASE]


def test_regions_become_label_values(tmp_path: Path) -> None:
    labels: dict[str, Any] = {"background": 0, "whole": [1, 2], "core": 2}
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, classes=2, labels=labels)
        cases = UnlabelledDataset(dataset.paths.unlabelled)
        image, _, _, _ = cases.load_case(CASE)
        probabilities = torch.full((2, *image.shape[1:]), 0.1)
        probabilities[0, :6] = 0.9  # whole alone
        probabilities[:, :3] = 0.8  # whole and core
        store = empty_store(dataset, tmp_path / "store")
        store_prediction(store, cases, CASE, iter([probabilities]), dataset, regions=True)
        stored = store.read_labels(CASE)[0]
        assert (stored[:3] == 2).all()
        assert (stored[3:6] == 1).all()
        assert (stored[6:] == 0).all()
        sure = store.read_confidence(CASE)["class_mean_max_probability"]
        assert sure == {"0": pytest.approx(0.9**2), "1": pytest.approx(0.9**2), "2": pytest.approx(0.8**2)}

        # a softmax over the three label values, as SAM gives it for the same data set
        softmax = torch.nn.functional.one_hot(torch.from_numpy(stored).long(), 3).permute(3, 0, 1, 2).float()
        store_prediction(store, cases, CASE, iter([softmax]), dataset, regions=False)
        np.testing.assert_array_equal(store.read_labels(CASE)[0], stored)


def test_background_outside_the_mask_is_marked(project: SFRDataset, tmp_path: Path) -> None:
    class WithMask(UnlabelledDataset):
        def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
            image, mask, previous, properties = super().load_case(identifier)
            mask = mask[:]
            mask[:, :, :5] = -1
            return image, mask, previous, properties

    cases = WithMask(project.paths.unlabelled)
    probabilities = HalfAndHalf().case_probabilities(CASE, cases.load_case(CASE)[0], {}, mirrored=False)
    store = empty_store(project, tmp_path / "store")
    store_prediction(store, cases, CASE, probabilities, project, regions=False)
    labels = store.read_labels(CASE)[0]
    assert (labels[:9] == 1).all(), "foreground stays, wherever it lies"
    assert (labels[9:, :5] == -1).all()
    assert (labels[9:, 5:] == 0).all()


def test_numbers_that_are_not_finite_are_no_labels(project: SFRDataset, tmp_path: Path) -> None:
    cases = UnlabelledDataset(project.paths.unlabelled)
    store = empty_store(project, tmp_path / "store")
    with pytest.raises(UserError, match="unlabelled_00: the prediction has numbers that are not finite"):
        store_prediction(store, cases, CASE, iter([torch.full((2, 18, 22, 20), torch.nan)]), project, regions=False)
    assert store.identifiers() == []


def test_the_record_compares_with_mirror_images_and_with_the_previous_round(
    project: SFRDataset, tmp_path: Path
) -> None:
    before, store = empty_store(project, tmp_path / "before"), empty_store(project, tmp_path / "store")
    label_pool(store, project, HalfAndHalf(), [CASE], mirrored=True, others={"previous_round_agreement": before})
    record = store.read_confidence(CASE)
    assert record["previous_round_agreement"] is None, "the store before does not have this case"
    # 9 of 18 slices are foreground: mirrored along D they are the other 9, along H the same
    assert record["flip_agreement"] == pytest.approx((0.0 + 1.0) / 2)

    label_pool(before, project, HalfAndHalf(), [CASE])
    (store.folder / f"{CASE}.json").unlink()
    label_pool(store, project, HalfAndHalf(), [CASE], others={"sam_agreement": before})
    record = store.read_confidence(CASE)
    assert record["sam_agreement"] == 1.0
    assert record["previous_round_agreement"] is None
    assert record["flip_agreement"] is None


def test_the_summary_names_empty_cases(project: SFRDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = empty_store(project, tmp_path / "store")
    label_pool(store, project, HalfAndHalf(), [CASE])
    summarise(store, [CASE])
    assert (
        capsys.readouterr().out == "mean probability of its decision, over predicted foreground: 0.900 (lowest 0.900)\n"
    )

    for case, labels in {"full": torch.ones(1, 2, 2, 2), "empty": torch.zeros(1, 2, 2, 2)}.items():
        store.write(
            case,
            labels.numpy().astype(np.int8),
            no_confidence(labels, num_classes=2),
            label_manager=project.label_manager,
            patch_size=(2, 2, 2),
        )
    summarise(store, ["empty", "full"])
    assert capsys.readouterr().out == "no foreground in 1 of 2 cases: empty\n"
