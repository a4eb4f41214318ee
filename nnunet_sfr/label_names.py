"""What the label values of a data set are called; nothing here needs nnU-Net, which takes seconds to import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

IGNORE_NAME = "ignore"
"""nnU-Net's name of the label that marks what is not annotated."""


def class_names(dataset_json: Mapping[str, Any]) -> dict[str, str]:
    """Name of every foreground label value, which is given as text; with regions, of the smallest that has it.

    Values of which that is the same region have their number behind it, as "lungs (2)".

    Args:
        dataset_json: nnU-Net's ``dataset.json``.
    """
    labels = {
        name: list(values) if isinstance(values, (list, tuple)) else [values]
        for name, values in dataset_json["labels"].items()
    }
    left_out = {0, *labels.get(IGNORE_NAME, ())}
    names: dict[str, str] = {}
    for name, values in sorted(labels.items(), key=lambda label: len(label[1])):
        for value in values:
            if value not in left_out:
                names.setdefault(str(value), name)
    shared = {name for name, values in Counter(names.values()).items() if values > 1}
    return {value: f"{name} ({value})" if name in shared else name for value, name in names.items()}
