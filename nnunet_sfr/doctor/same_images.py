"""Images that are in more than one place, under whatever name: found by their voxels.

Renaming, another compression and another type of number do not hide a copy, for the decoded voxels are compared. Only
images of equal size are decoded; the size is in the header.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from tqdm import tqdm

from nnunet_sfr.data.readers import find_reader
from nnunet_sfr.doctor.findings import Finding, note, ok, problem, some_names
from nnunet_sfr.doctor.raw_folders import SETS, RawImages
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import LABELLED_IMAGES, TEST_IMAGES
from nnunet_sfr.silence import without_printing

SUBJECT = "same image"

Image = tuple[str, str, Path]
"""Set, identifier and file."""


def check_same_images(raw: RawImages) -> list[Finding]:
    """Images that are there twice: between the sets, and within one."""
    images = list(raw.files())
    groups, unreadable = identical_images(images, raw.dataset_json)
    findings = []
    if unreadable:
        text = f"{len(unreadable)} cannot be read: {some_names(unreadable)}"
        findings.append(problem("images", text, "replace them", unreadable))
    for one, other in itertools.combinations_with_replacement(SETS, 2):
        pairs = sorted(_pairs(groups, one, other))
        if pairs:
            findings.append(_finding(one, other, pairs))
    return findings or [ok(SUBJECT, f"none of the {len(images)} images is there twice, in or between the three sets")]


def identical_images(images: Sequence[Image], dataset_json: dict[str, Any]) -> tuple[list[list[Image]], list[str]]:
    """Find equal images of different cases.

    An image of one value alone (an empty channel) is like any other of its size and tells nothing.

    Args:
        images: files to compare.
        dataset_json: which tells nnU-Net's reader.

    Returns:
        groups of two and more equal images, and the files that cannot be read.
    """
    by_size: dict[Any, list[Image]] = defaultdict(list)
    for image in images:
        by_size[_size_in_header(image[2])].append(image)
    candidates = [image for group in by_size.values() if _of_several_cases(group) for image in group]
    if not candidates:
        return [], []
    reader = _reader(candidates, dataset_json)
    by_voxels: dict[str, list[Image]] = defaultdict(list)
    unreadable = []
    # on standard error, and gone when it is done, so that the report stays one page
    for image in tqdm(candidates, desc="Comparing images", leave=False, disable=None):
        try:
            key = _hash_of_voxels(reader, image[2])
        except Exception:  # every reader fails in its own way
            unreadable.append(str(image[2]))
            continue
        if key is not None:
            by_voxels[key].append(image)
    return [group for group in by_voxels.values() if _of_several_cases(group)], unreadable


def _of_several_cases(images: Iterable[Image]) -> bool:
    return len({(name, identifier) for name, identifier, _ in images}) > 1


def _size_in_header(file: Path) -> tuple[int, ...] | None:
    """Voxels along each axis without decoding the image; None where the header does not tell."""
    try:
        if file.name.endswith((".nii", ".nii.gz")):
            header: Any = nibabel.load(file)
            size = tuple(header.shape)
        else:
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
            size = reader.GetSize()
    except Exception:  # such images are compared with each other, and reported if they cannot be read at all
        return None
    return tuple(int(length) for length in size)


def _reader(images: Iterable[Image], dataset_json: dict[str, Any]) -> type[BaseReaderWriter] | None:
    """nnU-Net's choice of reader: the first one that can open an image; None if none can open any."""
    for _, _, file in images:
        with contextlib.suppress(UserError):
            return find_reader(dataset_json, file)
    return None


def _hash_of_voxels(reader: type[BaseReaderWriter] | None, file: Path) -> str | None:
    """Hash of the decoded image; None if all its voxels have one value.

    Raises:
        Exception: whatever the reader raises where it cannot read the file.
    """
    if reader is None:
        raise RuntimeError(f"no reader of nnU-Net opens {file}")
    with without_printing():
        array, _ = reader().read_images((str(file),))
    if np.all(array == array.flat[0]):
        return None
    return hashlib.sha256(np.asarray(array, np.float32).tobytes()).hexdigest() + str(array.shape)


def _pairs(groups: Iterable[Sequence[Image]], one: str, other: str) -> list[str]:
    """``imagesUl/a_0000.nii.gz = imagesTs/b_0000.nii.gz`` for every two cases of these sets with equal images."""
    found: dict[tuple[str, str], str] = {}
    for group in groups:
        for first, second in itertools.combinations(sorted(group, key=lambda image: list(SETS).index(image[0])), 2):
            if (first[0], second[0]) == (one, other) and first[:2] != second[:2]:
                pair = f"{one}/{first[2].name} = {other}/{second[2].name}"
                found.setdefault((first[1], second[1]), pair)
    return list(found.values())


def _finding(one: str, other: str, pairs: Sequence[str]) -> Finding:
    if one != other:
        text = f"{len(pairs)} of {one} in {other} too: {some_names(pairs)}"
        remedy = f"remove them from {other}: they are labelled"
        if other == TEST_IMAGES:
            remedy = f"remove them from {one} or {other}: a result on cases that were trained on is worth nothing"
        return problem(SUBJECT, text, remedy, pairs)
    text = f"{len(pairs)} twice in {one}: {some_names(pairs)}"
    if one == LABELLED_IMAGES:
        return problem(SUBJECT, text, "remove one of each, or a fold validates on what it is trained on", pairs)
    return note(SUBJECT, text, "remove one of each, or it counts twice", pairs)
