"""nnU-Net's file names of images, ``<case>_<channel, 4 digits><ending>``, without nnU-Net, which imports slowly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.errors import UserError


def image_name(ending: str) -> re.Pattern[str]:
    """The name of an image, with the group ``identifier``; a leading dot hides a file."""
    return re.compile(r"(?P<identifier>[^.].*)_\d{4}" + re.escape(ending))


def group_channels(files: Sequence[Path], ending: str, problems: list[str]) -> dict[str, tuple[Path, ...]]:
    """Files by identifier, in the order of identifiers and channels; names that do not match go to ``problems``.

    Args:
        files: of one folder.
        ending: of image files.
        problems: gets a line for each name that does not match.
    """
    groups: dict[str, list[Path]] = {}
    for file in sorted(files):
        match = image_name(ending).fullmatch(file.name)
        if match is not None:
            groups.setdefault(match["identifier"], []).append(file)
        elif file.name.endswith(ending) and not file.name.startswith("."):
            new = f"{file.name.removesuffix(ending)}_0000{ending}"
            problems.append(f"{file}: the name has no channel; rename the file to {new}, one file per channel")
        else:
            problems.append(f"{file}: the name is not of the form <case>_0000{ending}; rename or remove the file")
    return {identifier: tuple(groups[identifier]) for identifier in sorted(groups)}


def channel_problem(identifier: str, images: Sequence[Path], num_channels: int, ending: str) -> str | None:
    """A channel file that is missing or too many, or a number in the name of a case that was taken for a channel.

    A single file may hold all channels (an RGB picture, a 4D volume): then only reading it can tell.

    Args:
        identifier: of the case.
        images: its files.
        num_channels: that ``dataset.json`` names.
        ending: of the data set's files.

    Returns:
        One line that says what is wrong; None if nothing is.
    """
    expected = [f"{identifier}_{channel:04d}{ending}" for channel in range(num_channels)]
    present = [file.name for file in images]
    if present in (expected, expected[:1]):
        return None
    hint = f"if the number belongs to the name of the case, add _0000 before {ending}"
    if present and not set(present) & set(expected):
        return (
            f"{images[0]}: the number behind the last _ is that of a channel, and no file of case {identifier} is of "
            f"channel 0; {hint}"
        )
    wrong = min(set(expected).symmetric_difference(present))
    place = images[0].parent / wrong
    if wrong in expected:
        return f"{place}: this channel of case {identifier} is missing; every case needs one file per channel"
    return (
        f"{place}: this channel of case {identifier} is more than the {num_channels} that dataset.json names; remove "
        f"it, or {hint}"
    )


def check_images_to_predict(folder: Path, num_channels: int, ending: str) -> None:
    """Check the names in a folder that nnUNetv2_predict will read; files of other endings it passes over.

    Args:
        folder: of images.
        num_channels: of the data set.
        ending: of image files.

    Raises:
        UserError: there is no image, or one whose name nnU-Net would cut or pass over.
    """
    files = [file for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith(".")]
    if not files:
        raise UserError(f"-i {folder}: no file ends in {ending}; put the images there, called <case>_0000{ending}")
    problems: list[str] = []
    for identifier, images in group_channels(files, ending, problems).items():
        problem = channel_problem(identifier, images, num_channels, ending)
        problems += [] if problem is None else [problem]
    if problems:
        raise UserError(problems[0])
