"""The content of all raw images and labels: read once, checked, and measured for the fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.normalization.default_normalization_schemes import RGBTo01Normalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray

from nnunet_sfr.data.dataset_json import channel_names
from nnunet_sfr.data.grids import require_same_grid
from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.data.raw_cases import RawCase, RawDataset, raise_first
from nnunet_sfr.data.readers import find_reader
from nnunet_sfr.data.reading import ContentError, check_spacing_file, read_strictly
from nnunet_sfr.data.sidecars import spacing_file
from nnunet_sfr.errors import UserError
from nnunet_sfr.label_names import IGNORE_NAME
from nnunet_sfr.paths import DATASET_JSON, LABELS
from nnunet_sfr.region_labels import values_with_the_same_regions
from nnunet_sfr.wording import shortest, times

BYTE = 255
"""Highest value of a channel called rgb_to_0_1, by which nnU-Net divides."""


@dataclass(frozen=True)
class CaseFacts:
    """What planning needs to know of one case; axes as the reader returns them.

    Args:
        shape_after_crop: voxels after nnU-Net's crop to the nonzero region.
        spacing: in mm.
        relative_size: voxels after the crop divided by voxels before.
        foreground: nnU-Net's sample of intensities under the label, one array per channel; all are empty if the case
            has no label or no foreground.
    """

    shape_after_crop: tuple[int, int, int]
    spacing: tuple[float, float, float]
    relative_size: float
    foreground: tuple[NDArray[np.float32], ...]


def check_cases(raw: RawDataset, *, samples_per_case: int, processes: int) -> dict[str, CaseFacts]:
    """Read every image and label once: check its content and gather what the fingerprint needs.

    Args:
        raw: the listed data set.
        samples_per_case: foreground intensities to draw per labelled case and channel.
        processes: processes that read in parallel.

    Returns:
        The facts of every case, by identifier, labelled cases first.

    Raises:
        UserError: an image that cannot be read, has NaN or infinite voxels or nothing but zeros, channels or a label
            that do not lie on one grid, a spacing that is not positive, a number of channels or of dimensions that does
            not fit, label values that ``dataset.json`` does not know, or no foreground in any label.
    """
    reader = _reader_of(raw)
    labels = label_values(raw)
    if issubclass(reader, Tiff3DIO):
        _check_spacing_files(raw)
    ignore, of_bytes = raw.dataset_json["labels"].get(IGNORE_NAME), _byte_channels(raw)
    tasks = [_Check(case, reader, raw.num_channels, labels, samples_per_case, ignore, of_bytes) for case in raw.cases]
    results = run_parallel(_check_case, tasks, processes=processes, description="Checking images")
    facts: dict[str, CaseFacts] = {}
    problems = []
    for case, result in zip(raw.cases, results, strict=True):
        if isinstance(result, str):
            problems.append(result)
        else:
            facts[case.identifier] = result
    raise_first(problems)
    raise_first(_dimension_problems(raw, facts))
    _name_values_with_the_same_regions(raw)
    if not any(len(channel) for case in raw.labelled for channel in facts[case.identifier].foreground):
        raise UserError(
            f"{raw.folder / LABELS}: no label has any foreground voxel; at least one labelled case needs some"
        )
    return facts


def case_problem(
    case: RawCase, reader: type[BaseReaderWriter], *, num_channels: int, labels: tuple[int, ...]
) -> str | None:
    """Read one case and check what :func:`check_cases` checks of it.

    Args:
        case: with or without label.
        reader: of the data set.
        num_channels: that ``dataset.json`` names.
        labels: values that a label file may hold.

    Returns:
        One line that says what is wrong; None if nothing is.
    """
    task = _Check(case, reader, num_channels, labels, num_samples=0)
    try:
        images, properties = _read_images(task)
        if case.label is not None:
            _read_label(task, images.shape[1:], properties)
    except ContentError as problem:
        return str(problem)
    return None


@dataclass(frozen=True)
class _Check:
    """One task of :func:`check_cases`."""

    case: RawCase
    reader: type[BaseReaderWriter]
    num_channels: int
    labels: tuple[int, ...]
    num_samples: int
    ignore_label: int | None = None
    byte_channels: tuple[int, ...] = ()
    """Those that nnU-Net takes for numbers from 0 to 255, which it asserts."""


def _byte_channels(raw: RawDataset) -> tuple[int, ...]:
    schemes = map(get_normalization_scheme, channel_names(raw.dataset_json))
    return tuple(index for index, scheme in enumerate(schemes) if issubclass(scheme, RGBTo01Normalization))


def _reader_of(raw: RawDataset) -> type[BaseReaderWriter]:
    """nnU-Net's reader for a data set: the one that opens the first labelled image."""
    case = raw.labelled[0]
    try:
        return find_reader(raw.dataset_json, case.images[0], f"the image of case {case.identifier}")
    except UserError:
        if raw.dataset_json["file_ending"] in Tiff3DIO.supported_file_endings:
            try:
                check_spacing_file(case.images[0], case, "image")
            except ContentError as problem:
                raise UserError(str(problem)) from None
        raise


def _check_spacing_files(raw: RawDataset) -> None:
    """Refuse TIFF volumes of which some have a file with their spacing, and say so where none has.

    nnU-Net takes 1 mm for those that have none, and only prints it.

    Raises:
        UserError: naming the first that has none.
    """
    ending = raw.dataset_json["file_ending"]
    places = {case.images[0]: spacing_file(case.images[0], ending, is_label=False) for case in raw.cases}
    labels = {case.label: case.images[0] for case in raw.labelled if case.label is not None}
    have = {image for image, place in places.items() if place.is_file()}
    if not have:
        print(
            f"No image has a file with its spacing, as {next(iter(places.values())).name} beside "
            f"{next(iter(places)).name}; nnU-Net takes 1 mm for all of them"
        )
    spacing = '{"spacing": [z, y, x]}'
    missing = [
        f"{place}: not found, though other images have such a file; write {spacing} in mm there, or nnU-Net takes 1 mm"
        for image, place in places.items()
        if have and image not in have
    ]
    places_of_labels = {label: spacing_file(label, ending, is_label=True) for label in labels}
    missing += [
        f"{place}: not found; copy {places[labels[label]]} there, or nnU-Net takes 1 mm for the label"
        for label, place in places_of_labels.items()
        if labels[label] in have and not place.is_file()
    ]
    raise_first(missing)


def label_values(raw: RawDataset) -> tuple[int, ...]:
    """Every value that a label file may hold, the ignore label too.

    Raises:
        UserError: the labels in ``dataset.json`` are not nnU-Net's format.
    """
    _require_plain_labels(raw)
    try:
        manager = LabelManager(raw.dataset_json["labels"], raw.dataset_json.get("regions_class_order"))
        values = [int(label) for label in manager.all_labels]
        ignore = [] if manager.ignore_label is None else [int(manager.ignore_label)]
    except (AssertionError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{raw.folder / DATASET_JSON}: labels are not nnU-Net's format ({error}); correct them"
        ) from None
    every = sorted(values + ignore)
    if every != list(range(len(every))):
        missing = min(set(range(every[-1])) - set(every), default=every[-1])
        raise UserError(
            f"{raw.folder / DATASET_JSON}: labels have the values {', '.join(map(str, every))}, without {missing}; "
            "nnU-Net wants consecutive values from 0 on, here and in the label files"
        )
    return tuple(values + ignore)


def _name_values_with_the_same_regions(raw: RawDataset) -> None:
    manager = LabelManager(raw.dataset_json["labels"], raw.dataset_json.get("regions_class_order"))
    for group in values_with_the_same_regions(manager):
        print(
            f"{raw.folder / DATASET_JSON}: the label values {', '.join(map(str, group))} belong to the same regions: "
            "SAM tells them apart and a network cannot, so that the two agree little; give them one value"
        )


def _require_plain_labels(raw: RawDataset) -> None:
    """Refuse a value that two labels share, and an order of regions that does not fit them.

    Regions share values by their nature, and are compared as a whole.
    """
    file, labels = raw.folder / DATASET_JSON, raw.dataset_json["labels"]
    names: dict[str, str] = {}
    for name, value in labels.items():
        text = str(sorted(value) if isinstance(value, (list, tuple)) else [value])
        if text in names:
            raise UserError(f"{file}: the labels {names[text]} and {name} have the same value {value}; remove one")
        names[text] = name
    order = raw.dataset_json.get("regions_class_order")
    if order is None:
        return
    regions = [name for name in labels if name not in ("background", IGNORE_NAME)]
    known = {value for values in labels.values() for value in (values if isinstance(values, list) else [values])}
    unknown = sorted(value for value in order if value not in known)
    if unknown or len(order) != len(regions):
        fault = f"the value {unknown[0]}, which no label has" if unknown else f"{len(order)} values"
        raise UserError(f"{file}: regions_class_order has {fault}; it needs one for each of {', '.join(regions)}")


def _check_case(task: _Check) -> CaseFacts | str:
    """Read and check one case; what is wrong with it comes back as the line to print."""
    try:
        return _measure(task)
    except ContentError as problem:
        return str(problem)
    except MemoryError:
        return f"{task.case.images[0]}: memory ran out; use fewer processes (-npfp)"


def _measure(task: _Check) -> CaseFacts:
    case = task.case
    images, properties = _read_images(task)
    spacing = properties["spacing"]
    label = None if case.label is None else _read_label(task, images.shape[1:], properties)
    cropped, cropped_label, _ = crop_to_nonzero(images, label)
    foreground = []
    if label is not None and cropped_label is not None:
        if task.ignore_label is not None:
            # what is not annotated is no foreground; nnU-Net's statistics would count it, and most of it is background
            cropped_label = np.where(cropped_label == task.ignore_label, 0, cropped_label)
        foreground, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            cropped_label, cropped, num_samples=task.num_samples
        )
    before, after = images.shape[1:], cropped.shape[1:]
    return CaseFacts(
        shape_after_crop=(int(after[0]), int(after[1]), int(after[2])),
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        relative_size=float(np.prod(after) / np.prod(before)),
        foreground=tuple(np.asarray(channel, np.float32) for channel in foreground),
    )


def _read_images(task: _Check) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """All channels (channels, and three axes), and the reader's properties of the first: spacing in mm, geometry."""
    case = task.case
    channels: list[NDArray[np.float32]] = []
    first: dict[str, Any] = {}
    for file in case.images:
        array, properties = read_strictly(task.reader, file, case)
        first = first or properties
        if channels:
            _require_grid_of_first_channel(file, (array.shape[1:], properties), (channels[0].shape[1:], first), case)
        channels.append(array)
    images = np.concatenate(channels)
    if len(images) != task.num_channels:
        raise ContentError(
            f"{case.images[0]}: case {case.identifier} has {len(images)} channels where dataset.json names "
            f"{task.num_channels}; check the files of this case and the dimensions of the image"
        )
    if len(first.get("sitk_stuff", {}).get("spacing", ())) > 3:
        raise ContentError(
            f"{case.images[0]}: case {case.identifier} has four dimensions, of which nnU-Net cannot write "
            "label maps, so that it fails when it validates or predicts; save every channel in a file of its own"
        )
    for channel in task.byte_channels:
        low, high = images[channel].min(), images[channel].max()
        if low < 0 or high > BYTE:
            raise ContentError(
                f"{case.images[0]}: channel {channel} of case {case.identifier} has values from {low:g} to {high:g}, "
                f"and rgb_to_0_1 in dataset.json stands for 0 to {BYTE}; convert it, or name the channel otherwise"
            )
    if not np.any(images):
        raise ContentError(f"{case.images[0]}: case {case.identifier} has no voxel but zeros; replace or remove it")
    if all(channel.min() == channel.max() for channel in images):
        raise ContentError(
            f"{case.images[0]}: case {case.identifier} has the value {images.flat[0]:g} in every voxel; replace or "
            "remove it"
        )
    return images, first


def _require_grid_of_first_channel(
    file: Path,
    channel: tuple[Sequence[int], Mapping[str, Any]],
    first: tuple[Sequence[int], Mapping[str, Any]],
    case: RawCase,
) -> None:
    """nnU-Net lays channels over one another by their voxels, and only prints that they lie in different places."""
    like, remedy = "first channel", "resample the channels to one grid"
    try:
        require_same_grid(file, channel, first, case.identifier, like=like, remedy=remedy)
    except UserError as error:
        raise ContentError(str(error)) from None


def _read_label(task: _Check, shape: tuple[int, ...], image: dict[str, Any]) -> NDArray[np.float32]:
    """Label (1, and three axes) on the grid of the image, whose reader gave the properties ``image``."""
    case = task.case
    assert case.label is not None
    label, properties = read_strictly(task.reader, case.label, case, kind="label")
    if label.shape != (1, *shape):
        raise ContentError(
            f"{case.label}: {_size(label)} voxels, but the image of case {case.identifier} has "
            f"{' x '.join(map(str, shape))}; label and image need the same grid"
        )
    try:
        require_same_grid(case.label, (label.shape[1:], properties), (shape, image), case.identifier)
    except UserError as error:
        raise ContentError(str(error)) from None
    # isin compares with each value in turn, where unique would sort all voxels
    unknown = label[~np.isin(label, task.labels)]
    if unknown.size:
        raise ContentError(
            f"{case.label}: case {case.identifier} has the label {shortest(unknown.min())}, which dataset.json does "
            "not name; correct one of the two"
        )
    return label


def _dimension_problems(raw: RawDataset, facts: dict[str, CaseFacts]) -> list[str]:
    """2D pictures among volumes, or volumes among 2D pictures."""
    expected = _is_2d(facts[raw.labelled[0].identifier])
    names = {True: "2D", False: "3D"}
    return [
        f"{case.images[0]}: case {case.identifier} is {names[not expected]}, but the first labelled case is "
        f"{names[expected]}; use images of one dimension"
        for case in raw.cases
        if _is_2d(facts[case.identifier]) != expected
    ]


def _is_2d(case: CaseFacts) -> bool:
    """nnU-Net's readers give a 2D picture one slice, and a slice spacing that is 999 or 999 times the largest other."""
    first, *others = case.spacing
    return case.shape_after_crop[0] == 1 and first > 100 * max(others)


def _size(array: NDArray[np.float32]) -> str:
    return times(array.shape[1:])
