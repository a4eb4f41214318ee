"""Who is labelled, unlabelled and to test on, by the lists that a benchmark goes by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_sfr.conversion.source_dataset import ConversionRequest, Split
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.wording import first_names

LISTS = Path(__file__).with_name("lists")


@dataclass(frozen=True)
class CaseLists:
    """The lists of a benchmark.

    Args:
        training: labelled and unlabelled cases; with N labelled cases and no seed, these are the first N.
        test: cases to test on.
        validation: cases set aside for choosing settings.
    """

    training: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.training, *self.test, *self.validation)


def read_lists(name: str) -> CaseLists:
    """The lists in ``lists/<name>.json`` of this package."""
    content = read_json(LISTS / f"{name}.json", "install the package again")
    return CaseLists(tuple(content["train"]), tuple(content["test"]), tuple(content.get("validation", ())))


def split_by_lists(
    lists: CaseLists, present: Collection[str], request: ConversionRequest
) -> tuple[Split, tuple[str, ...]]:
    """Divide the cases that are there.

    Args:
        lists: of the benchmark.
        present: cases (or patients) that were found; at least one.
        request: number of labelled cases, seed, and whether cases may be missing.

    Returns:
        Who is what, and the cases that are missing, which the request allows.

    Raises:
        UserError: cases are missing, or the number of labelled ones cannot be chosen.
    """
    source, labelled = request.source, request.labelled
    most = len(lists.training) - 1
    if not 1 <= labelled <= most:
        raise UserError(f"--labelled must be from 1 to {most} with the standard lists, got {labelled}")
    missing = tuple(case for case in lists.all if case not in present)
    if missing and not request.allow_missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(lists.all)} cases are missing: {first_names(missing)}; "
            "get them, or add --allow-missing to convert the others"
        )
    chosen = choose_labelled(lists.training, labelled, request.seed)
    lost = [case for case in chosen if case not in present]
    if lost:  # another case in the place of a missing one would be another benchmark
        raise UserError(
            f"{source}: {len(lost)} of the {len(chosen)} cases to label are missing: {first_names(lost)}; "
            "get them or choose a smaller --labelled"
        )
    unlabelled = tuple(case for case in lists.training if case in present and case not in chosen)
    if not unlabelled:
        raise UserError(f"{source}: leaves no unlabelled case with --labelled {labelled}; choose fewer")
    test = tuple(case for case in lists.test if case in present)
    return Split(chosen, unlabelled, test, tuple(case for case in lists.validation if case in present)), missing


def choose_labelled(training: Sequence[str], labelled: int, seed: int | None) -> tuple[str, ...]:
    """The labelled cases: the first of the list, or drawn with a seed (numpy's default generator).

    ``choose_labelled(("a", "b", "c"), 2, None)`` is ``("a", "b")``.

    Args:
        training: cases to choose from, in the order of the list.
        labelled: how many.
        seed: None takes the first ones.
    """
    if seed is None:
        return tuple(training[:labelled])
    order = np.random.default_rng(seed).permutation(len(training))
    return tuple(training[index] for index in order[:labelled])
