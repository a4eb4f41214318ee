"""The re-trained model's labels of the pool before a round of SFR+."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch._dynamo import OptimizedModule

from nnunet_sfr.confidence import agreement
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.labelling.from_retraining import CHECKPOINT, label_from_retraining, labeller_of_preprocessed
from nnunet_sfr.labelling.trained_model import open_model
from tests.tiny_model import CPU, random_model

CASES = ["unlabelled_00", "unlabelled_01"]


def label(dataset: SFRDataset, trainer: str = "nnUNetTrainer", round_index: int = 1, **share: Any) -> PseudoLabelStore:
    return label_from_retraining(
        dataset, "all", CPU, trainer=trainer, round_index=round_index, partition=CasePartition(**share)
    )


def test_the_labels_are_nnunets_and_the_manifest_says_whose(project: SFRDataset) -> None:
    model = random_model(project, mirror_axes=(0, 1, 2))
    store = label(project)
    assert store.folder == project.paths.model_pseudo_labels("all", 1)
    assert store.identifiers() == CASES
    made_by = store.manifest["made_by"]
    assert (made_by["source"], made_by["model"], made_by["round"]) == ("retraining", model.name, 1)
    assert made_by["checkpoints"] == {"fold_all": [CHECKPOINT, file_hash(model / "fold_all" / CHECKPOINT)]}

    predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), ("all",), CHECKPOINT)
    image = torch.from_numpy(UnlabelledDataset(project.paths.unlabelled).load_case(CASES[0])[0][:])

    def predicted(view: torch.Tensor) -> torch.Tensor:
        logits = predictor.predict_logits_from_preprocessed_data(view)
        labels: torch.Tensor = predictor.label_manager.convert_logits_to_segmentation(logits)
        return labels

    labels = predicted(image)
    assert 0 < labels.float().mean() < 1, "a model that says the same of every voxel would prove nothing"
    np.testing.assert_array_equal(store.read_labels(CASES[0])[0], labels.numpy())
    views = [torch.flip(predicted(torch.flip(image, (axis,))), (axis - 1,)) for axis in (1, 2, 3)]
    by_hand = np.mean([agreement(labels, view, num_classes=2) for view in views])
    assert store.read_confidence(CASES[0])["flip_agreement"] == pytest.approx(by_hand)


def test_a_model_that_was_not_trained_to_mirror_is_not_asked_to(project: SFRDataset) -> None:
    random_model(project)
    assert label(project).read_confidence(CASES[0])["flip_agreement"] is None


def test_a_network_that_nnunet_has_wrapped_to_compile_it(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(project)
    labels = label(project).read_labels(CASES[0])
    monkeypatch.setenv("nnUNet_compile", "t")
    opened = open_model(model, ["all"], CHECKPOINT, project, CPU)
    assert isinstance(opened.predictor.network, OptimizedModule), "without it the test would prove nothing"
    labeller = labeller_of_preprocessed(opened, project, CPU)
    image = torch.from_numpy(UnlabelledDataset(project.paths.unlabelled).load_case(CASES[0])[0][:])
    # a forward pass through the wrapper would compile for a minute
    np.testing.assert_array_equal(labels[0], labeller.probabilities(image).argmax(0).numpy())


def test_it_is_compared_with_sam_first_and_with_itself_later(project: SFRDataset) -> None:
    random_model(project)
    of_sam = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    for round_index, before in ((1, of_sam), (2, None)):
        store = label(project, round_index=round_index)
        before = before or PseudoLabelStore.open(project.paths.model_pseudo_labels("all", 1), grid=project.grid)
        dice = agreement(*(torch.from_numpy(labels.read_labels(CASES[1])) for labels in (store, before)), num_classes=2)
        assert store.read_confidence(CASES[1])["previous_round_agreement"] == pytest.approx(dice)
        with_sam = agreement(
            *(torch.from_numpy(labels.read_labels(CASES[1])) for labels in (store, of_sam)), num_classes=2
        )
        assert store.read_confidence(CASES[1])["sam_agreement"] == pytest.approx(with_sam), "of round 0, in any round"
    assert store.read_confidence(CASES[1])["previous_round_agreement"] == 1.0, "the same model a round later"


def test_parts_and_a_new_model(project: SFRDataset) -> None:
    random_model(project)
    assert label(project, num_parts=2, part_id=1).identifiers() == CASES[1:]
    assert label(project, num_parts=2, part_id=0).identifiers() == CASES
    random_model(project, seed=7)
    with pytest.raises(UserError, match="made with another checkpoints; add --overwrite to replace them"):
        label(project)
    assert label(project, overwrite=True).identifiers() == CASES


def test_models_that_cannot_begin_a_round(project: SFRDataset) -> None:
    with pytest.raises(UserError, match="nnUNetTrainerSFR_MT__nnUNetPlansCPU__3d_fullres: there is no such model"):
        label(project, "nnUNetTrainerSFR_MT")
    model = random_model(project)
    plans = json.loads((model / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 2.0, 2.0]
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match=r"was trained for spacing \[2.0, 2.0, 2.0\], the plan has"):
        label(project)
    assert not project.paths.model_pseudo_labels("all", 1).exists()
