"""The tiny data set as TIFF volumes with files for their spacing, and as colour pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import SimpleITK
import tifffile

SPACING = [3.0, 1.0, 1.0]


def turn_into_tiff(raw: Path, spacing: list[float] | None = SPACING) -> None:
    """Replace every NIfTI file of a raw data set by a TIFF volume.

    Args:
        raw: ``nnUNet_raw/<name>``.
        spacing: z y x in mm, written beside every image and label map as nnU-Net's Tiff3DIO reads it; None for none.
    """
    for file in sorted(raw.glob("*/*.nii.gz")):
        stem = file.name.removesuffix(".nii.gz")
        tifffile.imwrite(file.with_name(f"{stem}.tif"), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))))
        file.unlink()
        case = stem[: -len("_0000")] if file.parent.name.startswith("images") else stem
        if spacing is not None:
            file.with_name(f"{case}.json").write_text(json.dumps({"spacing": spacing}))
    edit_dataset_json(raw, file_ending=".tif")


def edit_dataset_json(raw: Path, **changes: Any) -> None:
    file = raw / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}))
