"""Windows of class counts and the blending of logits against the authors' code."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import distributed

from nnunet_sfr.trainers.class_statistics import ClassStatistics, blend
from nnunet_sfr.trainers.cubes import CubeGrid, join_cubes
from tests.conftest import Golden

TOLERANCE = 1e-5


def classes_with_counts(counts: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def weights_of(statistics: ClassStatistics, temperature: float = 1.0) -> torch.Tensor:
    weights = statistics.class_weights(temperature)
    assert weights is not None
    return weights


# --- windows ---


def test_windows_equal_the_authors(golden: Callable[[str], Golden]) -> None:
    magicnet = golden("magicnet")
    statistics = ClassStatistics(num_classes=6, window=2)
    distributions = [magicnet[f"logger.round{number}_dist"] for number in range(2)]
    assert not np.array_equal(distributions[0], distributions[1]), (
        "the windows must differ to show that the second replaces the first"
    )
    for number, expected in enumerate(distributions):
        # the file holds the two calls of a window in one piece; where it is cut makes no difference
        for classes in np.split(magicnet[f"logger.round{number}_classes"], [250]):
            statistics.add(torch.from_numpy(classes))
        np.testing.assert_array_equal(statistics.state_dict()["finished"].numpy(), expected)
        np.testing.assert_allclose(weights_of(statistics), expected / expected.max(), rtol=TOLERANCE)


def test_nothing_is_known_before_a_window_is_finished() -> None:
    statistics = ClassStatistics(num_classes=3, window=2)
    assert statistics.class_weights() is None
    statistics.add(classes_with_counts([8, 4, 2]))
    assert statistics.class_weights() is None
    statistics.add(classes_with_counts([8, 0, 2]).view(2, 5))
    assert weights_of(statistics).tolist() == [1.0, 0.25, 0.25]


def test_a_finished_window_stands_until_the_next_is_finished() -> None:
    statistics = ClassStatistics(num_classes=2, window=2)
    for counts in ([8, 2], [8, 2]):
        statistics.add(classes_with_counts(counts))
    statistics.add(classes_with_counts([0, 9]))
    assert weights_of(statistics).tolist() == [1.0, 0.25]
    statistics.add(classes_with_counts([3, 3]))
    # 3 and 12 of the second window alone
    assert weights_of(statistics).tolist() == [0.25, 1.0]


def test_temperature_and_classes_without_voxels() -> None:
    statistics = ClassStatistics(num_classes=4, window=1)
    statistics.add(classes_with_counts([64, 16, 0]))
    assert weights_of(statistics, 1.0).tolist() == [1.0, 0.25, 0.0, 0.0]
    assert weights_of(statistics, 2.0).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert weights_of(statistics, 0.5).tolist() == [1.0, 0.0625, 0.0, 0.0]
    statistics.add(torch.zeros(0, dtype=torch.int64))
    assert weights_of(statistics).tolist() == [0.0] * 4


def test_counts_beyond_float32_stay_exact() -> None:
    statistics = ClassStatistics(num_classes=2, window=3)
    statistics.load_state_dict({**statistics.state_dict(), "counts": torch.tensor([2**24, 0]), "iterations": 1})
    for _ in range(2):
        statistics.add(torch.tensor([0]))
    assert statistics.state_dict()["finished"].tolist() == [2**24 + 2, 0]


def test_mistakes_are_refused() -> None:
    statistics = ClassStatistics(num_classes=3, window=1)
    with pytest.raises(ValueError, match="expected classes below 3, got 3"):
        statistics.add(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="positive temperature"):
        statistics.class_weights(0.0)
    with pytest.raises(ValueError, match="expected statistics of 3 classes"):
        statistics.load_state_dict(ClassStatistics(num_classes=4, window=1).state_dict())


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_resuming_changes_nothing(iterations: int) -> None:
    torch.manual_seed(0)
    batches = torch.randint(0, 4, (9, 50))
    through, before, after = (ClassStatistics(num_classes=4, window=3) for _ in range(3))
    for batch in batches[:iterations]:
        through.add(batch)
        before.add(batch)
    state = before.state_dict()
    saved = copy.deepcopy(state)
    for batch in batches[iterations:]:
        before.add(batch)
    after.load_state_dict(state)
    for batch in batches[iterations:]:
        through.add(batch)
        after.add(batch)
        ours, expected = after.class_weights(), through.class_weights()
        assert (ours is None) == (expected is None)
        if ours is not None and expected is not None:
            assert torch.equal(ours, expected)
    # what was handed out is a snapshot: neither the giver nor the taker changes it
    assert {key: torch.as_tensor(value).tolist() for key, value in state.items()} == {
        key: torch.as_tensor(value).tolist() for key, value in saved.items()
    }


def test_ranks_are_summed_when_a_window_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def add_another_rank(counts: torch.Tensor) -> None:
        calls.append(counts.tolist())
        counts += torch.tensor([1, 30])

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", add_another_rank)
    statistics = ClassStatistics(num_classes=2, window=2)
    statistics.add(classes_with_counts([4, 1]))
    assert not calls
    statistics.add(classes_with_counts([5, 1]))
    assert calls == [[9, 2]]
    assert statistics.state_dict()["finished"].tolist() == [10, 32]


# --- blending ---


@pytest.mark.parametrize("temperature", [1, 2])
def test_blended_logits_equal_the_authors(golden: Callable[[str], Golden], temperature: int) -> None:
    magicnet = golden("magicnet")
    teacher = torch.from_numpy(magicnet["blend.ema_output"])
    cubes = join_cubes(torch.from_numpy(magicnet["blend.cube_logits"]).flatten(0, 1), CubeGrid((3, 3, 3), (4, 4, 4)))
    np.testing.assert_array_equal(cubes.numpy(), magicnet["blend.unmix_pl_geometric"])

    statistics = ClassStatistics(num_classes=5, window=1)
    statistics.add(classes_with_counts(magicnet["blend.class_counts"].astype(int).tolist()))
    weights = weights_of(statistics, temperature)
    expected = {key: magicnet[f"blend.T{temperature}.{key}"] for key in ("class_weight", "blended_logits_geometric")}
    np.testing.assert_allclose(weights, expected["class_weight"], rtol=TOLERANCE, atol=TOLERANCE)

    classes = teacher.argmax(dim=1)
    np.testing.assert_array_equal(classes.numpy(), magicnet["blend.pred_class_teacher"])
    blended = blend(teacher, cubes, classes, weights)
    np.testing.assert_allclose(blended, expected["blended_logits_geometric"], rtol=TOLERANCE, atol=TOLERANCE)
    pseudo_label = blended.argmax(dim=1)
    np.testing.assert_array_equal(pseudo_label.numpy(), magicnet[f"blend.T{temperature}.pseudo_label_geometric"])
    # the vectors tell the right place of a cube from the authors' wrong one, and the blend from either part
    assert not np.array_equal(pseudo_label.numpy(), magicnet[f"blend.T{temperature}.pseudo_label_official"])
    assert not torch.equal(pseudo_label, classes)
    assert not torch.equal(pseudo_label, cubes.argmax(dim=1))


def test_common_classes_listen_to_the_cubes_and_rare_ones_to_the_teacher() -> None:
    teacher, cubes = torch.full((1, 3, 2, 2), 10.0), torch.full((1, 3, 2, 2), 20.0)
    classes = torch.tensor([[[0, 1], [2, 0]]])
    blended = blend(teacher, cubes, classes, torch.tensor([1.0, 0.25, 0.0]))
    # one weight per voxel, for all of its channels
    assert torch.equal(blended, torch.tensor([[20.0, 12.5], [10.0, 20.0]]).expand(1, 3, 2, 2))


def test_gradients_reach_both_parts() -> None:
    torch.manual_seed(0)
    teacher, cubes = (torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    classes = torch.randint(0, 3, (2, 2, 3))
    weights = torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda teacher, cubes: blend(teacher, cubes, classes, weights), (teacher, cubes))


def test_half_precision_logits_are_blended_in_full() -> None:
    logits = torch.ones(1, 2, 2, 2, dtype=torch.float16)
    assert blend(logits, logits, torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(2)).dtype == torch.float32
