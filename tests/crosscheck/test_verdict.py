"""One line that says what the numbers say, and no more."""

from __future__ import annotations

import pytest

from nnunet_sfr.crosscheck.estimate import Estimate
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM
from nnunet_sfr.crosscheck.verdict import verdict_of_comparison, verdict_of_sam

ABOVE, BELOW, AROUND = (0.10, 0.05, 0.15), (-0.10, -0.15, -0.05), (0.02, -0.03, 0.07)
LOWER = (-0.02, -0.12, 0.04)
"""Around 0 too, with the mean of both below SAM; as on the left atrium with four cases."""


def verdict(sam: tuple[float, ...], mean_over_sam: tuple[float, ...], mean: tuple[float, ...], n: int = 12) -> str:
    """Of differences (mean, low, high): SAM minus nnU-Net, both minus SAM, both minus nnU-Net."""
    dice = {SAM: Estimate(n, 0.7, 0.6, 0.8), NNUNET: Estimate(n, 0.6, 0.5, 0.7), MEAN: Estimate(n, 0.75, 0.6, 0.8)}
    differences = {
        (SAM, NNUNET): Estimate(n, *sam),
        (MEAN, SAM): Estimate(n, *mean_over_sam),
        (MEAN, NNUNET): Estimate(n, *mean),
    }
    return verdict_of_comparison(dice, differences, 400)


@pytest.mark.parametrize(
    ("dice", "words"),
    [
        (0.75, "SFR is likely to help: SAM's labels have an expected Dice of 0.75; how well plain nnU-Net"),
        (0.65, "SFR may help: SAM's labels have an expected Dice of 0.65"),
        (0.4, "SFR is unlikely to help: SAM's labels have an expected Dice of 0.40; label more cases"),
    ],
)
def test_without_nnunet_it_says_what_cannot_be_known(dice: float, words: str) -> None:
    assert verdict_of_sam(dice, 6).startswith(words)
    assert verdict_of_sam(dice, 6).endswith("is not known (--with-nnunet measures it)")
    assert "(5 cases left out, which is few)" in verdict_of_sam(dice, 5)
    assert "\n" not in verdict_of_sam(dice, 1)


@pytest.mark.parametrize(
    ("sam", "mean_over_sam", "mean", "start", "end"),
    [
        (
            ABOVE,
            AROUND,
            ABOVE,
            "SFR is likely to help: SAM's labels (Dice 0.70)",
            "take SAM's labels, which is the default",
        ),
        (
            ABOVE,
            BELOW,
            AROUND,
            "SFR is likely to help: SAM's labels (Dice 0.70)",
            "take SAM's labels, which is the default",
        ),
        (ABOVE, ABOVE, ABOVE, "SFR is likely to help: labels by the mean of SAM and nnU-Net (Dice 0.75)", "--plus)"),
        (AROUND, AROUND, ABOVE, "SFR is likely to help: labels by the mean of SAM and nnU-Net (Dice 0.75)", "--plus)"),
        (AROUND, LOWER, ABOVE, "Whether SFR helps cannot be told from 12 cases:", "(sfr_evaluate --compare)"),
        (BELOW, ABOVE, ABOVE, "SFR is likely to help: labels by the mean of SAM and nnU-Net (Dice 0.75)", "--plus)"),
        (BELOW, ABOVE, AROUND, "SFR is unlikely to help: SAM's labels (Dice 0.70) are worse", "or nnU-Net alone"),
        (AROUND, AROUND, AROUND, "Whether SFR helps cannot be told from 12 cases:", "(sfr_evaluate --compare)"),
        (AROUND, ABOVE, AROUND, "Whether SFR helps cannot be told from 12 cases:", "(sfr_evaluate --compare)"),
    ],
)
def test_the_source_follows_from_the_intervals(
    sam: tuple[float, ...], mean_over_sam: tuple[float, ...], mean: tuple[float, ...], start: str, end: str
) -> None:
    said = verdict(sam, mean_over_sam, mean)
    assert said.startswith(start)
    assert said.endswith(end)
    assert "nnU-Net's after 400 iterations (0.60)" in said
    assert "\n" not in said


def test_few_cases_prove_nothing() -> None:
    assert "SFR may help:" in verdict(ABOVE, AROUND, ABOVE, n=5)
    assert ", but 5 cases are too few to be sure; take SAM's labels" in verdict(ABOVE, AROUND, ABOVE, n=5)
    assert "too few" not in verdict(ABOVE, AROUND, ABOVE, n=6)
    assert "SFR may not help:" in verdict(BELOW, AROUND, AROUND, n=4)


def test_numbers_of_the_line() -> None:
    assert "by 0.10 (95 % interval 0.05 to 0.15); take" in verdict(ABOVE, AROUND, ABOVE)
    assert "are worse than nnU-Net's after 400 iterations (0.60) by 0.10 (95 % interval 0.05 to 0.15);" in verdict(
        BELOW, AROUND, AROUND
    )
    assert "differ by 0.02 (95 % interval -0.03 to 0.07), which includes 0; start with SAM's labels" in verdict(
        AROUND, AROUND, AROUND
    )


def test_one_case_and_none() -> None:
    one, nothing = Estimate(1, 0.02, None, None), Estimate(0, None, None, None)
    dice = {SAM: Estimate(1, 0.7, None, None), NNUNET: Estimate(1, 0.6, None, None), MEAN: nothing}
    pairs = ((SAM, NNUNET), (MEAN, SAM), (MEAN, NNUNET))
    said = verdict_of_comparison(dice, dict.fromkeys(pairs, one), 400)
    assert said.startswith("Whether SFR helps cannot be told from 1 case: SAM's labels (Dice 0.70)")
    assert "differ by 0.02; start" in said
    assert "no case has a Dice of both" in verdict_of_comparison(dice, dict.fromkeys(pairs, nothing), 400)


def test_an_estimate_of_cases() -> None:
    assert Estimate.of([]) == Estimate(0, None, None, None)
    assert Estimate.of([0.5]) == Estimate(1, 0.5, None, None)
    both = Estimate.of([0.4, 0.6])
    assert (both.n, both.low, both.high) == (2, 0.4, 0.6)
    assert both.mean == pytest.approx(0.5)
    assert str(both) == "0.500 (0.400 to 0.600)"
    assert str(-both) == "-0.500 (-0.600 to -0.400)"
    assert str(Estimate.of([])) == "-"
    assert both.is_above_zero
    assert (-both).is_below_zero
