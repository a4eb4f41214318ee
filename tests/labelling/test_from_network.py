"""Labelling with a network in the middle of its training: nnU-Net's predictions, and no trace left."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.labelling.case_labels import LoadedCase
from nnunet_sfr.labelling.filling import label_pool
from nnunet_sfr.labelling.from_network import NetworkLabeller
from nnunet_sfr.settings import PseudoLabelSettings
from tests.tiny_model import CPU, Thresholding
from tests.tiny_project import build_trainer, make_project, nnunet_folders


def labeller(
    network: torch.nn.Module, dataset: SFRDataset, mirror_axes: tuple[int, ...] | None = None, **settings: Any
) -> NetworkLabeller:
    return NetworkLabeller(network, dataset, PseudoLabelSettings(**settings), CPU, mirror_axes=mirror_axes)


def first_image(dataset: SFRDataset) -> torch.Tensor:
    image, _, _, _ = UnlabelledDataset(dataset.paths.unlabelled).load_case("unlabelled_00")
    return torch.from_numpy(image[:])


def random_numbers() -> tuple[Any, ...]:
    """What the generators would give next."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    numbers = random.random(), np.random.rand(), torch.rand(1).item()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    return numbers


@pytest.mark.parametrize(
    ("configuration", "options"),
    [
        ("3d_fullres", {}),
        ("2d", {"shape": (10, 40, 36)}),
        ("3d_fullres", {"channels": 2, "classes": 2, "labels": {"background": 0, "whole": [1, 2], "core": 2}}),
    ],
    ids=["3d", "2d", "regions_and_two_channels"],
)
def test_a_network_that_looks_at_single_voxels(configuration: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Overlap, padding and cutting back change nothing, so the answer is known voxel by voxel."""
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, configuration, **options)
        regions = "labels" in options
        network = labeller(Thresholding(2, regions=regions), dataset)
        assert network.regions == regions
        image = first_image(dataset)
        probabilities = network.probabilities(image)
        assert probabilities.shape == (2, *image.shape[1:])
        assert probabilities.dtype == torch.float32
        logits = Thresholding(2, regions=regions)(image[None])[0]
        expected = torch.sigmoid(logits) if regions else torch.softmax(logits, dim=0)
        # nnU-Net adds logits in half precision
        torch.testing.assert_close(probabilities, expected, atol=0.02, rtol=0)

        store = PseudoLabelStore.create(tmp_path / "store", grid=dataset.grid, made_by=Provenance(source="test"))
        label_pool(store, dataset, network, ["unlabelled_00"])
        labels = store.read_labels("unlabelled_00")[0]
        wanted = (image[-1] > 1).int() + ((image[-1] > 1.5).int() if regions else 0)
        clear = ((image[-1] - 1).abs() > 0.02) & ((image[-1] - 1.5).abs() > 0.02)
        assert 0 < (labels > 0).mean() < 0.5
        np.testing.assert_array_equal(labels[clear.numpy()], wanted[clear].numpy())
        assert set(np.unique(labels)) == {*range(3 if regions else 2)}


def test_it_predicts_what_nnunet_predicts(project: SFRDataset) -> None:
    trainer = build_trainer(project, "nnUNetTrainer")
    trainer.initialize()
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=True, device=CPU, allow_tqdm=False)
    axes = (0, 2)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json, "", axes
    )
    image = first_image(project)
    expected = predictor.label_manager.apply_inference_nonlin(predictor.predict_sliding_window_return_logits(image))
    mirrored = labeller(trainer.network, project, axes, use_mirroring=True).probabilities(image)
    assert torch.equal(mirrored, expected)
    assert not torch.equal(labeller(trainer.network, project, axes).probabilities(image), expected)
    assert not torch.equal(labeller(trainer.network, project, None, use_mirroring=True).probabilities(image), expected)


def test_it_leaves_the_training_as_it_was(project: SFRDataset, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = build_trainer(project, "nnUNetTrainer")
    trainer.initialize()
    network = trainer.network
    frozen = network.encoder.stages[0]
    network.train()
    frozen.eval()
    patch = torch.randn(1, 1, *trainer.configuration_manager.patch_size)
    network(patch)[0].sum().backward()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    assert gradients
    numbers, benchmark = random_numbers(), torch.backends.cudnn.benchmark
    modes = [module.training for module in network.modules()]
    assert len(set(modes)) == 2, "a mixture is what has to be restored"

    capfd.readouterr()
    image = first_image(project)
    probabilities = labeller(network, project).probabilities(image)
    assert capfd.readouterr() == ("", "")

    assert not probabilities.requires_grad
    assert not probabilities.is_inference()
    assert random_numbers() == numbers
    assert torch.backends.cudnn.benchmark == benchmark
    assert [module.training for module in network.modules()] == modes
    assert network.decoder.deep_supervision is True
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    after = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert all(torch.equal(*pair) for pair in zip(after, gradients, strict=True))
    outputs = network(patch)
    assert isinstance(outputs, list), "deep supervision is on again"
    outputs[0].sum().backward()


def test_the_network_is_not_compiled_on_the_way(
    project: SFRDataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """nnU-Net compiles what its predictor is given; here that would be an error."""
    monkeypatch.setenv("nnUNet_compile", "true")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: torch.nn.Module())
    assert labeller(Thresholding(), project).probabilities(first_image(project)).shape == (2, 18, 22, 20)
    assert capfd.readouterr() == ("", "")


def test_the_network_is_restored_after_an_error(project: SFRDataset) -> None:
    trainer = build_trainer(project, "nnUNetTrainer")
    trainer.initialize()
    trainer.network.train()
    with pytest.raises(RuntimeError):
        labeller(trainer.network, project).probabilities(torch.zeros(5, 18, 22, 20))  # channels that it has not
    assert trainer.network.training
    assert trainer.network.decoder.deep_supervision is True


def test_predictions_follow_the_weights(project: SFRDataset) -> None:
    trainer = build_trainer(project, "nnUNetTrainer")
    trainer.initialize()
    network, image = labeller(trainer.network, project), first_image(project)
    before = network.probabilities(image)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.mul_(1.5)
    assert not torch.equal(network.probabilities(image), before)


@pytest.mark.parametrize(("configuration", "shape"), [("3d_fullres", (18, 22, 20)), ("2d", (10, 40, 36))])
def test_views_of_the_mirrored_image(configuration: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    """A network that finds the voxels brighter than the one before them in H: mirrored, brighter than the one behind.

    With test-time mirroring the first view is an average, but the views that it is compared with are not.
    """

    class BrighterThanBefore(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            rise = 1000 * (patches - patches.roll(1, -2))
            return torch.cat([-rise, rise], dim=1)

    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, configuration, shape=shape)
        axes = (0, 1, 2)[: len(dataset.configuration_manager.patch_size)]
        network = labeller(BrighterThanBefore(), dataset, axes, use_mirroring=True)
        case = LoadedCase.open("unlabelled_00", UnlabelledDataset(dataset.paths.unlabelled), dataset)
        predictions = list(network.case_probabilities(case, mirrored=True))
        views = [prediction.probabilities for prediction in predictions]
        unmirrored = list(network.case_probabilities(case, mirrored=False))
    assert len(unmirrored) == 1
    assert torch.equal(unmirrored[0].probabilities, views[0])
    assert [prediction.mirrored for prediction in predictions] == [False] + [True] * len(axes)
    voxels = torch.from_numpy(case.image[:])[0]
    brighter = {before: (voxels > voxels.roll(before, 1))[:, 1:-1] for before in (1, -1)}
    expected = [brighter[-1 if axis == len(axes) - 2 else 1] for axis in axes]
    for axis, (view, labels) in enumerate(zip(views[1:], expected, strict=True)):
        assert torch.equal(view.argmax(0)[:, 1:-1] == 1, labels), axis
    assert not torch.equal(views[0].argmax(0)[:, 1:-1] == 1, brighter[1]), "an average of views that differ"
