"""What is printed about a store that has been filled."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.labelling.emptiness import Emptiness, counted_voxels, find_emptiness

LONGEST_WARNING = 500
"""Characters, after which a list of cases or classes is cut."""


def print_confidence(store: PseudoLabelStore, identifiers: Sequence[str]) -> None:
    """Print the confidence of some cases, where there is one.

    Args:
        store: filled.
        identifiers: of its cases.
    """
    records = [store.read_confidence(case) for case in identifiers]
    for name in ("flip_agreement", "foreground_mean_max_probability"):
        known = [value for value in map(MEASURES[name].value, records) if value is not None]
        if known:
            print(f"{MEASURES[name].meaning}: {np.mean(known):.3f} (lowest {min(known):.3f})")


def warn_of_emptiness(store: PseudoLabelStore, class_names: Mapping[str, str]) -> None:
    """Print in which cases nothing was found, and which classes are in none.

    Args:
        store: to look into; all its cases count.
        class_names: name of every foreground label value (as text).
    """
    found = emptiness_of(store, class_names)
    for sentence in found.sentences():
        print(f"warning: {textwrap.shorten(sentence, LONGEST_WARNING, placeholder=' ...')}")
    if found.is_suspicious:
        print("warning: a training would learn from these labels that there is nothing to find; look at them first")


def emptiness_of(store: PseudoLabelStore, class_names: Mapping[str, str]) -> Emptiness:
    """What the labels in a store do not contain.

    Args:
        store: to look into; all its cases count, but those whose voxels the tool that filled it did not count.
        class_names: name of every foreground label value (as text).
    """
    records = {case: store.read_confidence(case) for case in store.identifiers()}
    return find_emptiness(counted_voxels(records), class_names)
