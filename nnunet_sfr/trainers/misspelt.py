"""Names that are nearly those of our trainers, and what was meant."""

from __future__ import annotations

import re

from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS
from nnunet_sfr.trainers.methods import METHODS

_LENIENT = re.compile(
    r"(?P<trainer>.+?)(_?rounds?_?(?P<round>\d+))?(_?((?P<epochs>\d+)_?epochs?|epochs?_?(?P<epochs_behind>\d+)))?",
    flags=re.IGNORECASE,
)


def explanation(name: str) -> str:
    """What is wrong with a name that is none of ours, in one line; empty if it does not look like one of ours.

    Args:
        name: as it was typed after ``-tr``.
    """
    match = _LENIENT.fullmatch(name)
    meant = None if match is None else _BY_LETTERS.get(_letters(match["trainer"]))
    if match is not None and meant is not None:
        number, epochs = int(match["round"] or 0), int(match["epochs"] or match["epochs_behind"] or 0)
        if number and meant in TRAINERS:
            meant = f"nnUNetTrainerSFRPlus_{meant.rpartition('_')[2]}"
        meant += f"_round{number}" if number > 1 else ""
        meant += f"_{epochs}epochs" if epochs else ""
        return "" if meant == name else f"-tr {name}: no such trainer; did you mean {meant}?"
    for prefix in ("nnUNetTrainerSFRPlus", "nnUNetTrainerSFR"):
        if name.startswith(prefix):
            return (
                f"-tr {name}: no such trainer; there is {prefix}_ with {', '.join(METHODS)}, and _<N>epochs behind it"
            )
    return ""


def _letters(name: str) -> str:
    """A name without what is easily mistaken."""
    return re.sub(r"[_-]", "", name).lower()


_BY_LETTERS = {_letters(name): name for name in (*TRAINERS, *ROUND_TRAINERS)}
