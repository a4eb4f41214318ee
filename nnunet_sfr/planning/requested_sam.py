"""Which SAM a user asked planning for, and what the plan that is there says where they asked for nothing."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from nnunet_sfr.sam_models import MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS
from nnunet_sfr.settings import SAMSettings


@dataclass(frozen=True)
class RequestedSAM:
    """The options of planning about SAM; None for each that was not given.

    Args:
        model: a name in :data:`nnunet_sfr.sam_models.MODELS`.
        adaptation: a name in :data:`nnunet_sfr.sam_stage.adaptations.ADAPTATIONS`.
        checkpoint: file with weights.
    """

    model: str | None = None
    adaptation: str | None = None
    checkpoint: str | None = None

    def settled(self, present: dict[str, Any] | None) -> RequestedSAM:
        """What was not asked for taken from a plan on disk; another model takes nothing from the one before.

        Args:
            present: the configuration's entry in the plan, None where there is none.
        """
        before = _of(present)
        if self.model not in (None, before.model):
            return self
        return RequestedSAM(before.model, self.adaptation or before.adaptation, self.checkpoint or before.checkpoint)

    def options(self) -> str:
        """What was asked for, as it is typed."""
        given = (("-sam", self.model), ("-adaptation", self.adaptation), ("-checkpoint", self.checkpoint))
        return " ".join(f"{option} {value}" for option, value in given if value is not None)

    def differing_from(self, present: dict[str, Any]) -> str:
        """The options that differ from a plan on disk, in words; empty if none does."""
        before = _of(present)
        options = (
            ("-sam", self.model, before.model),
            ("-adaptation", self.adaptation, before.adaptation),
            ("-checkpoint", self.checkpoint, before.checkpoint),
        )
        return " and ".join(
            f"{option} {value} (it had {old or 'none'})" for option, value, old in options if value not in (None, old)
        )


NO_REQUEST = RequestedSAM()


def _of(present: dict[str, Any] | None) -> RequestedSAM:
    """The section ``sam`` of a plan on disk, without names that an edit has made unknown."""
    section = (present or {}).get("sam")
    values = section if isinstance(section, dict) else {}
    checkpoint = values.get("checkpoint")
    return RequestedSAM(
        # a key that an edit has left out means what reading the plan takes for it
        _known(values.get("model", SAMSettings.model if values else None), MODELS),
        _known(values.get("adaptation", SAMSettings.adaptation if values else None), ADAPTATIONS),
        checkpoint if isinstance(checkpoint, str) else None,
    )


def _known(value: object, names: Container[str]) -> str | None:
    return value if isinstance(value, str) and value in names else None
