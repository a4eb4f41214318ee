"""nnU-Net's fingerprint with the geometry of the unlabelled images joined in.

``dataset_fingerprint.json`` stays nnU-Net's: its spacings and shapes cover all images, so that target spacing, patch
size and normalisation mask follow the whole data set; its intensity statistics stay those of the labelled foreground.
One key of our own tells which files it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.atomic import write_json
from nnunet_sfr.data.checks import CaseFacts, check_cases
from nnunet_sfr.data.raw_cases import RawDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.nnunet_json import LABELS_ADDED, OUTDATED_PLANS, OWN_KEY, read_fingerprint
from nnunet_sfr.paths import SFR_PLANS_ENDING

_NO_PLANS = ("dataset", "dataset_fingerprint", "splits_final")
"""The other JSON files beside the fingerprint, without their ending."""

FOREGROUND_SAMPLES = 100_000_000
"""Intensities drawn from all labelled cases together (``num_foreground_voxels_for_intensitystats`` in nnU-Net)."""


def update_fingerprint(file: Path, raw: RawDataset, *, processes: int, clean: bool = False) -> dict[str, Any]:
    """Make the fingerprint, unless the one on disk was made from the same files.

    Images are read and checked first; nothing is written before all of them pass.

    Args:
        file: ``nnUNet_preprocessed/<name>/dataset_fingerprint.json``.
        raw: the listed data set.
        processes: processes that read images.
        clean: make it again in any case.

    Returns:
        The fingerprint; ``spacings`` (mm) and ``shapes_after_crop`` (voxels) with the axes as the reader returns them,
        labelled cases first.

    Raises:
        UserError: an image that does not pass the checks of :func:`nnunet_sfr.data.checks.check_cases`.
    """
    present = _present(file, clean=clean)
    same = raw.is_that_of([present.get(OWN_KEY, {}).get("stamp", "")])
    if same and not clean:
        print("Fingerprint: no image changed since the last one, which is kept")
        raw.hashes.save()
        return present
    facts = check_cases(raw, samples_per_case=FOREGROUND_SAMPLES // len(raw.labelled), processes=processes)
    fingerprint = make_fingerprint(facts)
    fingerprint[OWN_KEY] = {
        "stamp": raw.stamp(),
        "num_labelled": len(raw.labelled),
        "num_unlabelled": len(raw.unlabelled),
        OUTDATED_PLANS: present[OWN_KEY].get(OUTDATED_PLANS, []) if same else _names_of_plans(file.parent),
    }
    write_json(fingerprint, file)
    raw.hashes.save()
    return fingerprint


def _present(file: Path, *, clean: bool) -> dict[str, Any]:
    """The fingerprint on disk; empty where there is none, or a damaged one that is to be made again in any case."""
    if not file.is_file():
        return {}
    try:
        return read_fingerprint(file, "delete it and run the same command again")
    except UserError:
        if clean:
            return {}
        raise


def _names_of_plans(folder: Path) -> list[str]:
    files = sorted(file for file in folder.glob("*.json") if not file.name.endswith(SFR_PLANS_ENDING))
    return [file.stem for file in files if file.stem not in _NO_PLANS]


def is_outdated(fingerprint: Mapping[str, Any], plans_name: str) -> bool:
    """Whether nnU-Net's plan was made from the fingerprint of other raw data.

    Args:
        fingerprint: from :func:`update_fingerprint`.
        plans_name: nnU-Net's plans identifier.
    """
    return plans_name in fingerprint.get(OWN_KEY, {}).get(OUTDATED_PLANS, ())


def record_plan(file: Path, plans_name: str) -> None:
    """Write into the fingerprint that nnU-Net's plan has been made from it.

    Args:
        file: with the fingerprint.
        plans_name: nnU-Net's plans identifier.
    """
    fingerprint = read_fingerprint(file)
    if is_outdated(fingerprint, plans_name):
        fingerprint[OWN_KEY][OUTDATED_PLANS].remove(plans_name)
        write_json(fingerprint, file)


def stamps(fingerprint: Mapping[str, Any]) -> set[str]:
    """Of the raw data that a fingerprint stands for: as it was made from, and with the labels that were added since."""
    own = fingerprint.get(OWN_KEY, {})
    return {part["stamp"] for part in (own, own.get(LABELS_ADDED, {})) if "stamp" in part}


def knows_added_labels(file: Path, raw: RawDataset) -> bool:
    """Whether sfr_add_labels has made the raw data what they are, out of those that were planned.

    Args:
        file: with the fingerprint.
        raw: the listed data set.
    """
    own = read_fingerprint(file).get(OWN_KEY, {})
    return raw.is_that_of([own.get(LABELS_ADDED, {}).get("stamp", "")])


def record_added_labels(file: Path, cases: Iterable[str], stamp: str) -> None:
    """Write into the fingerprint which cases have become labelled; everything else in it stays.

    Args:
        file: with the fingerprint.
        cases: their identifiers.
        stamp: of the raw data with them.
    """
    fingerprint = read_fingerprint(file)
    own = fingerprint.setdefault(OWN_KEY, {})
    before = own.get(LABELS_ADDED, {}).get("cases", [])
    own[LABELS_ADDED] = {"cases": sorted({*before, *cases}), "stamp": stamp}
    write_json(fingerprint, file)


def make_fingerprint(facts: Mapping[str, CaseFacts]) -> dict[str, Any]:
    """nnU-Net's fingerprint in JSON's types: geometry of all cases, intensities of the labelled foreground.

    With labelled cases alone it equals what ``DatasetFingerprintExtractor.run`` writes (a test holds it to that); that
    method is not called because it reads every image once more in worker processes of its own.
    """
    cases = list(facts.values())
    samples = [case.foreground for case in cases if case.foreground]
    channels = [np.concatenate([sample[channel] for sample in samples]) for channel in range(len(samples[0]))]
    return {
        "spacings": [list(case.spacing) for case in cases],
        "shapes_after_crop": [list(case.shape_after_crop) for case in cases],
        "foreground_intensity_properties_per_channel": {
            str(channel): _statistics(values) for channel, values in enumerate(channels)
        },
        "median_relative_size_after_cropping": float(np.median([case.relative_size for case in cases])),
    }


def _statistics(values: NDArray[np.float32]) -> dict[str, float]:
    percentile_00_5, median, percentile_99_5 = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(np.mean(values)),
        "median": float(median),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": float(percentile_99_5),
        "percentile_00_5": float(percentile_00_5),
    }
