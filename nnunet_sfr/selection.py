"""SFR+'s choice: the unlabelled cases that the re-trained model is sure of, and those that it is not.

The cases of high confidence teach SAM (with the model's labels), those of low confidence get SAM's new labels and teach
the model (docs/method.md, section 5). The choice of one round is one JSON file, :meth:`SFRPaths.selection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunet_sfr import __version__
from nnunet_sfr.atomic import write_json
from nnunet_sfr.dataset import read_json
from nnunet_sfr.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Who teaches whom in one round.

    Args:
        high: identifiers of high confidence, sorted.
        low: the other cases of the pool, sorted.
        rule: how they were told apart: measure, whose confidence, threshold; JSON types.
        values: the measure by identifier; None where there is none.
        overruled: identifiers that the user moved, by where they are now (``high`` or ``low``).
        model: who made the labels of the high cases: ``made_by`` of the model's store.
    """

    high: tuple[str, ...]
    low: tuple[str, ...]
    rule: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, float | None] = field(default_factory=dict)
    overruled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        write_json({**asdict(self), "nnunet_sfr_version": __version__}, file)


def read_selection(file: Path, pool: Sequence[str]) -> Selection:
    """Read the choice of a round.

    Args:
        file: :meth:`SFRPaths.selection`.
        pool: identifiers of all unlabelled cases.

    Raises:
        UserError: there is none, it is damaged, or it does not divide these cases.
    """
    remedy = "run sfr_select for this round"
    content = read_json(file, remedy)
    content.pop("nnunet_sfr_version", None)
    try:
        high, low = tuple(content.pop("high")), tuple(content.pop("low"))
        selection = Selection(high, low, **content)
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: is not a selection ({error}); {remedy}") from None
    if sorted([*high, *low]) != sorted(pool):
        odd = sorted(set(pool).symmetric_difference([*high, *low])) or sorted(set(high) & set(low))
        raise UserError(f"{file}: does not divide the unlabelled cases ({odd[0]}); {remedy}")
    return selection
