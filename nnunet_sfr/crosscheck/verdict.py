"""Whether SFR is likely to help and which source of labels to take: one line that follows from the numbers."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_sfr.crosscheck.estimate import Estimate
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM

LIKELY, UNLIKELY = 0.70, 0.60
"""Expected Dice of SAM's labels from which a re-training on them is likely to help, and below which it is unlikely to:
labels of the left atrium with 0.73 to 0.82 helped with 1, 4 and 16 labelled cases, labels with 0.47 (1 labelled) and
0.66 (4) lost to plain nnU-Net (docs/results.md)."""
FEWEST = 6
"""Cases from which on an interval that leaves out 0 is taken at its word: of fewer, all can have a difference of the
same sign by chance in more than 5 % of data sets (2 * 0.5 ** 5 = 0.06), and the bootstrap interval is too narrow."""

_WHOSE = {SAM: "SAM's labels", MEAN: "labels by the mean of SAM and nnU-Net"}
_TAKE = {
    SAM: "take SAM's labels, which is the default",
    NNUNET: "take the labels of a trained nnU-Net (sfr_pseudolabel --from-model), or nnU-Net alone",
    MEAN: "take the mean of both (rounds.model_share 0.5 and sfr_run --plus)",
}


def verdict_of_sam(dice: float, cases: int) -> str:
    """What SAM's Dice alone says.

    Args:
        dice: to expect of SAM's labels.
        cases: that were left out.
    """
    few = f" ({cases} {_cases(cases)} left out, which is few)" if cases < FEWEST else ""
    labels = f"SAM's labels have an expected Dice of {dice:.2f}{few}"
    unknown = "; how well plain nnU-Net does here is not known (--with-nnunet measures it)"
    if dice >= LIKELY:
        return f"SFR is likely to help: {labels}{unknown}"
    if dice >= UNLIKELY:
        return f"SFR may help: {labels}{unknown}"
    return (
        f"SFR is unlikely to help: {labels}; label more cases, or take labels of another source "
        f"(sfr_pseudolabel --from-model, --from-images){unknown}"
    )


def verdict_of_comparison(
    dice: Mapping[str, Estimate], differences: Mapping[tuple[str, str], Estimate], iterations: int
) -> str:
    """What the paired differences say.

    SFR is worth its time where its labels are better than those that nnU-Net gives by itself; the mean of both is taken
    where it is better than SAM's labels, or where it alone is surely better than nnU-Net's and not below SAM's on
    average: with few cases the interval of the better source can be the wider one.

    Args:
        dice: of every source.
        differences: (SAM, NNUNET), (MEAN, SAM) and (MEAN, NNUNET).
        iterations: optimiser steps of nnU-Net.
    """
    of_sam, of_mean = differences[SAM, NNUNET], differences[MEAN, NNUNET]
    takes_mean = of_mean.is_above_zero and _prefers_mean(of_sam, differences[MEAN, SAM])
    source, gain = (MEAN, of_mean) if takes_mean else (SAM, of_sam)
    if not gain.n:
        return "Whether SFR helps cannot be told: no case has a Dice of both SAM and nnU-Net"
    number = f"{gain.n} {_cases(gain.n)}"
    sure = gain.n >= FEWEST
    doubt = "" if sure else f", but {number} are too few to be sure"
    nnunet = f"nnU-Net's after {iterations} iterations ({dice[NNUNET].value:.2f})"
    if gain.is_above_zero:
        return (
            f"SFR {'is likely to' if sure else 'may'} help: {_WHOSE[source]} (Dice {dice[source].value:.2f}) are "
            f"better than {nnunet} by {_difference(gain)}{doubt}; {_TAKE[source]}"
        )
    sam = f"SAM's labels (Dice {dice[SAM].value:.2f})"
    if gain.is_below_zero:
        return (
            f"SFR {'is unlikely to' if sure else 'may not'} help: {sam} are worse than {nnunet} by "
            f"{_difference(-gain)}{doubt}; {_TAKE[NNUNET]}"
        )
    includes = "" if gain.low is None else ", which includes 0"
    return (
        f"Whether SFR helps cannot be told from {number}: {sam} and {nnunet} differ by {_difference(gain)}{includes}; "
        "start with SAM's labels, and compare the result with plain nnU-Net's (sfr_evaluate --compare)"
    )


def _prefers_mean(of_sam: Estimate, over_sam: Estimate) -> bool:
    """Whether the mean of both, which is surely better than nnU-Net's labels, is to be taken and not SAM's.

    Args:
        of_sam: SAM minus nnU-Net.
        over_sam: the mean of both minus SAM.
    """
    return over_sam.is_above_zero or (not of_sam.is_above_zero and over_sam.value >= 0)


def _difference(value: Estimate) -> str:
    between = "" if value.low is None else f" (95 % interval {value.low:.2f} to {value.high:.2f})"
    return f"{value.value:.2f}{between}"


def _cases(number: int) -> str:
    return "case" if number == 1 else "cases"
