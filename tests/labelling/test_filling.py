"""Which cases of a store are labelled, what they are compared with, and the summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_sfr.confidence import no_confidence
from nnunet_sfr.data.b2nd_files import open_b2nd
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.voxel_confidence import voxel_confidence_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.label_decision import LARGEST_PROBABILITY
from nnunet_sfr.labelling.case_labels import LoadedCase, Prediction
from nnunet_sfr.labelling.filling import ReferenceStores, label_pool
from nnunet_sfr.labelling.summary import print_confidence, warn_of_emptiness

CASE = "unlabelled_00"


class HalfAndHalf:
    """Foreground in the first half of the slices; counts what it was asked."""

    def __init__(self, *, regions: bool = False, average: bool = False) -> None:
        self.regions = regions
        self.average = average
        self.decision = LARGEST_PROBABILITY
        self.asked: list[str] = []

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        self.asked.append(case.identifier)
        foreground = torch.full(case.image.shape[1:], 0.2)
        foreground[: len(foreground) // 2] = 0.9
        probabilities = foreground[None] if self.regions else torch.stack([1 - foreground, foreground])
        yield Prediction(probabilities)
        if mirrored:  # it says the same of the mirrored image, whatever it shows, and so the opposite of this one
            yield from (Prediction(torch.flip(probabilities, (axis,)), mirrored=True) for axis in (1, 2))


def empty_store(dataset: SFRDataset, folder: Path) -> PseudoLabelStore:
    return PseudoLabelStore.create(folder, grid=dataset.grid, made_by=Provenance(source="test"))


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
    confidence = open_b2nd(voxel_confidence_file(store.folder, CASE))[:]
    assert (confidence[:9] == round(255 * 2 / 3)).all()
    assert (confidence[9:] == round(255 * (1 - 1.3 / 3))).all()
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
    text = record.read_text(encoding="utf-8")
    assert '"input": "' in text
    record.write_text(text.replace('"input": "', '"input": "another '))
    label_pool(store, project, labeller, [CASE])
    assert labeller.asked == [CASE, CASE]


def test_the_record_compares_with_mirror_images_and_with_the_previous_round(
    project: SFRDataset, tmp_path: Path
) -> None:
    before, store = empty_store(project, tmp_path / "before"), empty_store(project, tmp_path / "store")
    label_pool(store, project, HalfAndHalf(), [CASE], mirrored=True, references=ReferenceStores(previous_round=before))
    record = store.read_confidence(CASE)
    assert record["previous_round_agreement"] is None, "the store before does not have this case"
    assert record["sam_flip_agreement"] is None, "that store is not of the first round"
    # 9 of 18 slices are foreground: mirrored along D they are the other 9, along H the same
    assert record["flip_agreement"] == pytest.approx((0.0 + 1.0) / 2)

    label_pool(before, project, HalfAndHalf(), [CASE], mirrored=True)
    (store.folder / f"{CASE}.json").unlink()
    label_pool(store, project, HalfAndHalf(), [CASE], references=ReferenceStores(first_round=before))
    record = store.read_confidence(CASE)
    assert record["sam_agreement"] == 1.0
    assert record["previous_round_agreement"] is None
    assert record["flip_agreement"] is None
    assert record["sam_flip_agreement"] == pytest.approx((0.0 + 1.0) / 2), "of the first labels"


def test_the_summary_says_how_certain_the_labels_are(
    project: SFRDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = empty_store(project, tmp_path / "store")
    label_pool(store, project, HalfAndHalf(), [CASE])
    print_confidence(store, [CASE])
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
    print_confidence(store, ["empty", "full"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a": 1, "b": 1}, []),
        ({"a": 0, "b": 1}, ["warning: no foreground in 1 of 2 cases: a"]),
        (
            {"a": 0, "b": 0},
            [
                "warning: 1 of 1 classes found in none of the 2 cases: class_1",
                "warning: no foreground in 2 of 2 cases: a, b",
                "warning: a training would learn from these labels that there is nothing to find; look at them first",
            ],
        ),
        ({"a": 1, **{f"case_{number:03d}": 0 for number in range(99)}}, ["warning: no foreground in 99 of 100 cases"]),
    ],
    ids=["found", "one", "none", "long"],
)
def test_emptiness_is_warned_of(
    labels: dict[str, int],
    said: list[str],
    project: SFRDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = empty_store(project, tmp_path / "store")
    for case, label in labels.items():
        values = np.full((1, 2, 2, 2), label, np.int8)
        record = no_confidence(torch.from_numpy(values), num_classes=2)
        store.write(case, values, record, label_manager=project.label_manager, patch_size=(2, 2, 2))
    warn_of_emptiness(store, project.class_names)
    lines = capsys.readouterr().out.splitlines()
    if len(labels) <= 2:
        assert lines == said
    else:
        assert lines[0].startswith(said[0])
        assert len(lines[0]) < 520
        assert lines[0].endswith(" ...")
