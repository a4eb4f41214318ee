"""Options that only some public data sets have: added to a parser, and read from what it parsed.

``sfr_convert`` and ``benchmarks/study.py`` share them; what there is stands in the data sets' records.
"""

from __future__ import annotations

import argparse
from typing import Any

from nnunet_sfr.conversion import PUBLIC_DATASETS, DatasetOption

from .command_line import positive_number


def add_dataset_options(group: argparse._ArgumentGroup) -> None:
    """Add every option of every data set.

    Args:
        group: of the parser.
    """
    for name, known in PUBLIC_DATASETS.items():
        for option in known.options:
            group.add_argument(
                f"--{option.name}", default=None, help=f"{name}: {option.help}", **_parsing_arguments(option)
            )


def given_dataset_options(arguments: argparse.Namespace, dataset: str) -> dict[str, Any]:
    """The options that were given, by name.

    Args:
        arguments: parsed with the options of :func:`add_dataset_options`.
        dataset: a key of ``PUBLIC_DATASETS``.

    Raises:
        ValueError: one of them is another data set's.
    """
    names = [option.name for known in PUBLIC_DATASETS.values() for option in known.options]
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    own = {option.name for option in PUBLIC_DATASETS[dataset].options}
    for name in given:
        if name not in own:
            raise ValueError(f"--{name} is no option of {dataset}")
    return given


def _parsing_arguments(option: DatasetOption) -> dict[str, Any]:
    """How argparse reads it."""
    if option.kind == "flag":
        return {"action": "store_true"}
    if option.kind == "count":
        return {"type": positive_number, "metavar": "N"}
    kind = type(option.choices[0])
    return {"choices": option.choices, "type": kind, **({"nargs": "+"} if option.kind == "several" else {})}
