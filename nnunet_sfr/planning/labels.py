"""How planning lets SAM label: what proved best where it was measured (docs/results.md).

The settings' own defaults stand for plans of earlier versions, whose labels were made without these.
"""

from __future__ import annotations

from nnunet_sfr.label_decision import EXPECTED_DICE
from nnunet_sfr.settings import PseudoLabelSettings

PLANNED_PSEUDO_LABELS = PseudoLabelSettings(slice_smoothing=2.0, decision=EXPECTED_DICE, brighten_dark_cases=True)
