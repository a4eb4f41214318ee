"""Prototypes: means and k-means centres of the embeddings inside each class, as prompt tokens."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.adaptation import adapt
from nnunet_sfr.sam_stage.layers import prototypes
from nnunet_sfr.sam_stage.layers.prototypes import PrototypePrompts, class_prototypes
from nnunet_sfr.sam_stage.sam import build_sam
from nnunet_sfr.settings import SAMSettings

IGNORE = -1


def test_the_mean_inside_each_region_over_all_images() -> None:
    """Two images of 4 x 4 embeddings, labels at four times the resolution, a column that is ignored."""
    torch.manual_seed(0)
    embeddings = torch.randn(2, 5, 4, 4)
    small = torch.tensor([[0, 0, 1, IGNORE]] * 4)
    labels = small.repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = class_prototypes([(embedding, labels) for embedding in embeddings], 3, 1, ignore_index=IGNORE)
    torch.testing.assert_close(found[0], embeddings[:, :, :, :2].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(found[1], embeddings[:, :, :, 2].mean(dim=(0, 2)))
    assert not found[2].any(), "no image shows class 2"


def test_several_prototypes_are_the_centres_of_clusters() -> None:
    embedding = torch.zeros(2, 4, 4)
    embedding[0, :2], embedding[1, 2:] = 10, 20
    found = class_prototypes([(embedding, torch.zeros(16, 16, dtype=torch.int64))], 1, 2, ignore_index=IGNORE)
    assert sorted(map(tuple, found.tolist())) == [(0.0, 20.0), (10.0, 0.0)]


def test_tokens_are_the_prototypes_until_training_moves_them() -> None:
    prompts = PrototypePrompts(2, 3)
    assert prompts().shape == (1, 0, 3)
    prompts.collect([(torch.ones(3, 2, 2), torch.zeros(4, 4, dtype=torch.int64))], 2, ignore_index=IGNORE)
    torch.testing.assert_close(prompts(), torch.tensor([[[1.0, 1, 1], [0, 0, 0]]]))
    prompts().sum().backward()
    assert prompts.projection.weight.grad is not None
    assert not prompts.prototypes.requires_grad


def test_the_decoder_listens_to_prototypes(small: SAMModel) -> None:
    torch.manual_seed(1)
    sam = build_sam(small, input_size=64, in_channels=3, num_classes=2)
    images = torch.randn(1, 3, 64, 64)
    base = sam(images)
    adapt(sam, SAMSettings(model="vit_b", adaptation="few_shot", adaptation_settings={"prototypes_per_class": 2}))
    torch.testing.assert_close(sam(images), base)
    assert isinstance(sam.prompts, PrototypePrompts)
    labels = torch.arange(64).expand(64, 64) // 32
    sam.prompts.collect([(sam.encode(images)[0].detach(), labels)], 2, ignore_index=IGNORE)
    assert sam.prompts.prototypes.shape == (4, 32)
    assert (sam(images) - base).abs().max() > 1e-3


def test_the_number_of_prototypes_is_checked() -> None:
    with pytest.raises(ValueError, match="prototypes_per_class must be at least 1, got 0"):
        SAMSettings(model="vit_b", adaptation="few_shot", adaptation_settings={"prototypes_per_class": 0})
    with pytest.raises(ValueError, match="adaptation_settings of few_shot: unknown setting rank"):
        SAMSettings(model="vit_b", adaptation="few_shot", adaptation_settings={"rank": 3})


@pytest.mark.parametrize("per_class", [1, 2])
def test_memory_does_not_grow_with_the_number_of_images(per_class: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prototypes, "MOST_SAMPLES", 10)
    monkeypatch.setattr(prototypes, "MOST_CLUSTERED", 20)
    before = _tensors()  # kept here, so that no new one takes the id of one of them
    alive = []

    def images() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(3)
        for index in range(12):
            if index in (4, 8):  # k-means keeps as many again after twice as many
                alive.append(_bytes_besides(before))
            yield torch.randn(4, 32, 32), torch.zeros(32, 32, dtype=torch.int64)

    class_prototypes(images(), 1, per_class, ignore_index=IGNORE)
    assert alive[0] == alive[1] > 0


def test_kmeans_sees_embeddings_of_all_images_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0, 1, ..., 59 in ten images, at most 16 are kept: 0, 4, ..., 56, in whatever parts they come."""
    monkeypatch.setattr(prototypes, "MOST_CLUSTERED", 16)
    taken: list[np.ndarray] = []

    def kmeans(values: np.ndarray, count: int, **_: object) -> tuple[np.ndarray, None]:
        taken.append(values)
        return values[:count], None

    monkeypatch.setattr(prototypes, "kmeans2", kmeans)
    values = torch.arange(60.0)
    for parts in ([6] * 10, [1, 35, 24], [60]):
        images = [(part.view(1, 1, -1), torch.zeros(1, len(part), dtype=torch.int64)) for part in values.split(parts)]
        class_prototypes(images, 1, 2, ignore_index=IGNORE)
        assert taken.pop().tolist() == [[value] for value in range(0, 60, 4)]


def _tensors() -> list[torch.Tensor]:
    return [held for held in gc.get_objects() if issubclass(type(held), torch.Tensor)]


def _bytes_besides(others: list[torch.Tensor]) -> int:
    known = {id(tensor) for tensor in others}
    storages = [tensor.untyped_storage() for tensor in _tensors() if id(tensor) not in known]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
