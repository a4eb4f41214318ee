"""Colour pictures: one PNG with three channels, as nnU-Net's NaturalImage2DIO reads it, there and back again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from skimage import io

from nnunet_sfr.data.checks import check_cases
from nnunet_sfr.data.export import export_pseudo_labels
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.labelling.from_images import label_from_images
from tests.tiff_dataset import edit_dataset_json
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import fill_store, nnunet_folders, plan_project


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[Path]:
    """A raw data set of colour pictures of 40 x 36 pixels and more, labels in grey."""
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", labelled=2, unlabelled=2, shape=(1, 40, 36), test=0)
        raw = tmp_path / "nnUNet_raw" / NAME
        for file in sorted(raw.glob("*/*.nii.gz")):
            picture = file.with_name(f"{file.name.removesuffix('.nii.gz')}.png")
            grey = middle_slice(file)
            is_label = file.parent.name == "labelsTr"
            colours = grey if is_label else np.stack([grey / 2, grey / 3, 255 - grey / 2], axis=-1)
            io.imsave(str(picture), colours.clip(0, 255).astype(np.uint8), check_contrast=False)
            file.unlink()
        edit_dataset_json(raw, file_ending=".png", channel_names={"0": "R", "1": "G", "2": "B"})
        yield raw


def middle_slice(file: Path) -> np.ndarray:
    array: np.ndarray = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    middle: np.ndarray = array[len(array) // 2]
    return middle


def test_colour_pictures_there_and_back(pictures: Path, tmp_path: Path) -> None:
    dataset = plan_project("2d")
    assert dataset.num_input_channels == 3
    assert dataset.settings.stitching.patch_size[0] == 1
    filled = fill_store(dataset)
    export_pseudo_labels(filled, dataset, tmp_path / "exported")
    names = [f"unlabelled_0{index}" for index in range(2)]
    assert sorted(file.name for file in (tmp_path / "exported").iterdir()) == [f"{name}.png" for name in names]
    exported = io.imread(tmp_path / "exported/unlabelled_00.png")
    assert exported.shape == io.imread(pictures / "imagesUl/unlabelled_00_0000.png").shape[:2]
    assert set(np.unique(exported)) == {0, 1}
    stored = {name: filled.read_labels(name) for name in names}
    store = label_from_images(dataset, "all", folder=tmp_path / "exported", partition=CasePartition(overwrite=True))
    for name in names:
        np.testing.assert_array_equal(np.maximum(store.read_labels(name), 0), np.maximum(stored[name], 0))


def test_a_label_in_colour_is_named(pictures: Path) -> None:
    label = pictures / "labelsTr/train_01.png"
    io.imsave(str(label), np.stack([io.imread(label)] * 3, axis=-1), check_contrast=False)
    with pytest.raises(UserError, match=f"^{label}: the label of case train_01 has 3 channels .a colour picture has 3"):
        check_cases(list_cases(pictures), samples_per_case=10, processes=1)


def test_a_picture_with_transparency_has_a_channel_too_many(pictures: Path) -> None:
    image = pictures / "imagesUl/unlabelled_01_0000.png"
    colours = io.imread(image)
    io.imsave(str(image), np.concatenate([colours, colours[..., :1]], axis=-1), check_contrast=False)
    with pytest.raises(UserError, match=f"^{image}: case unlabelled_01 has 4 channels where dataset.json names 3"):
        check_cases(list_cases(pictures), samples_per_case=10, processes=1)
