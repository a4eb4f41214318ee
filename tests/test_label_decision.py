"""From probabilities to labels: the rules against a search through all thresholds."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nnunet_sfr.label_decision import (
    DECISION_RULES,
    EXPECTED_DICE,
    LARGEST_PROBABILITY,
    LOWEST_THRESHOLD,
    dice_threshold,
    labels_of_highest_expected_dice,
    most_probable_labels,
)

SHAPE = (6, 10, 12)


def random_class(seed: int, *, height: float, sharpness: float) -> torch.Tensor:
    """A blob with a blurred border: probabilities (D, H, W) that rise to ``height`` in its centre."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, length) for length in SHAPE), indexing="ij")
    distance = torch.stack(axes).square().sum(dim=0).sqrt() + 0.1 * torch.randn(SHAPE, generator=generator)
    return height * torch.sigmoid(sharpness * (0.7 - distance))


def expected_dice(probability: torch.Tensor, threshold: float) -> float:
    found = probability >= threshold
    return float(2 * probability[found].sum() / (found.sum() + probability.sum()))


def two_classes(foreground: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - foreground, foreground])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("height", "sharpness"), [(1.0, 20.0), (0.8, 4.0), (0.6, 6.0)])
def test_the_threshold_is_the_best_of_all(seed: int, height: float, sharpness: float) -> None:
    probability = random_class(seed, height=height, sharpness=sharpness)
    threshold = dice_threshold(probability)
    allowed = [value for value in probability.unique().tolist() if LOWEST_THRESHOLD <= value <= 0.5]
    best = max(expected_dice(probability, value) for value in allowed)
    assert expected_dice(probability, threshold) == pytest.approx(best, rel=1e-3)


def test_the_best_threshold_is_half_of_the_best_dice() -> None:
    """The theorem that the rule rests on, where no bound interferes."""
    probability = random_class(0, height=0.9, sharpness=4.0)
    threshold = dice_threshold(probability)
    assert LOWEST_THRESHOLD < threshold < 0.5
    assert threshold == pytest.approx(expected_dice(probability, threshold) / 2, abs=0.005)


def test_certain_probabilities_give_the_most_probable_class() -> None:
    labels = torch.randint(0, 4, SHAPE, generator=torch.Generator().manual_seed(1))
    probabilities = torch.nn.functional.one_hot(labels, 4).permute(3, 0, 1, 2).float()
    assert dice_threshold(probabilities[2]) == 0.5
    for rule in DECISION_RULES.values():
        torch.testing.assert_close(rule.decide(probabilities), labels)


def test_a_difficult_organ_is_found_and_an_absent_one_is_not() -> None:
    found, absent = torch.full(SHAPE, 0.02), torch.full(SHAPE, 0.02)
    found[2:4, 3:7, 3:9] = 0.4
    absent[4, 2:5, 2:5] = LOWEST_THRESHOLD - 0.01
    probabilities = torch.stack([1 - found - absent, found, absent])
    assert not most_probable_labels(probabilities).any()
    torch.testing.assert_close(labels_of_highest_expected_dice(probabilities), (found == 0.4).long())


def test_a_class_at_its_threshold_is_found() -> None:
    """With two classes the rule is the threshold itself, of float32 values that lie on a step too."""
    foreground = random_class(3, height=0.7, sharpness=5.0)
    foreground[0, 0, 0] = dice_threshold(foreground)
    found = labels_of_highest_expected_dice(two_classes(foreground)) == 1
    torch.testing.assert_close(found, foreground >= dice_threshold(foreground))


def test_of_two_classes_the_one_higher_above_its_threshold_wins() -> None:
    """The second class is certain elsewhere and needs 0.5, the first is certain nowhere and needs less."""
    first, second = torch.full(SHAPE, 0.001), torch.full(SHAPE, 0.001)
    second[4:] = 0.99
    first[:2] = 0.3
    first[3, 3, 3], second[3, 3, 3] = 0.45, 0.53
    probabilities = torch.stack([1 - first - second, first, second]).clamp(min=0)
    thresholds = dice_threshold(first), dice_threshold(second)
    assert 0.53 / thresholds[1] < 0.45 / thresholds[0]
    assert most_probable_labels(probabilities)[3, 3, 3] == 2
    assert labels_of_highest_expected_dice(probabilities)[3, 3, 3] == 1


def test_settings_can_be_checked_without_torch() -> None:
    code = "import nnunet_sfr.label_decision, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(DECISION_RULES) == {LARGEST_PROBABILITY, EXPECTED_DICE}
