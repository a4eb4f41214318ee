"""Listing and checking raw cases: every mistake in the input is one clear line, and nothing is written."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.data.checks import check_cases
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.errors import UserError
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.pipeline import plan_and_preprocess
from tests.tiny_dataset import NAME, make_raw_dataset, write_image
from tests.tiny_project import nnunet_folders

SHAPE = (6, 8, 7)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A raw data set of two channels in nnU-Net's folders; the labelled cases train_00 and train_01 differ in size."""
    monkeypatch.setattr(fingerprint, "FOREGROUND_SAMPLES", 1000)
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", labelled=2, unlabelled=2, channels=2, shape=SHAPE)
        yield tmp_path / "nnUNet_raw" / NAME


def edit_json(raw: Path, **changes: Any) -> None:
    file = raw / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}))


def image(value: float = 1.0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels around a value, not all of them the same; of 0 all are 0."""
    return (value * (1 + np.arange(np.prod(shape)) % 2)).reshape(shape).astype(np.float32)


def rename_case(raw: Path, new: str) -> None:
    for channel in range(2):
        old = raw / f"imagesUl/unlabelled_01_{channel:04d}.nii.gz"
        old.rename(old.with_name(f"{new}_{channel:04d}.nii.gz"))


def write_both(raw: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
    """Both channels of the first unlabelled case."""
    for file in (U0, U1):
        write_image(raw / file, array, spacing)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def with_voxel(value: float) -> np.ndarray:
    array = image()
    array[2, 3, 4] = value
    return array


def empty_labels(raw: Path) -> None:
    for index in range(2):
        shape = tuple(length + index for length in SHAPE)
        write_image(raw / f"labelsTr/train_{index:02d}.nii.gz", np.zeros(shape, np.uint8))


Break = Callable[[Path], object]
U0, U1 = "imagesUl/unlabelled_00_0000.nii.gz", "imagesUl/unlabelled_00_0001.nii.gz"
MISTAKES: dict[str, tuple[Break, str, str]] = {
    "no imagesUl": (lambda raw: shutil.rmtree(raw / "imagesUl"), "imagesUl", "not found; put the unlabelled images"),
    "empty imagesUl": (
        lambda raw: empty(raw / "imagesUl"),
        "imagesUl",
        "is empty; put the unlabelled images there, named like <case>_0000.nii.gz",
    ),
    "images in a folder of imagesUl": (
        lambda raw: into_a_folder(raw / "imagesUl"),
        "imagesUl",
        "has no images, but the folder batch_1, which nnU-Net does not look into; put the unlabelled images there",
    ),
    "no imagesTr": (lambda raw: shutil.rmtree(raw / "imagesTr"), "imagesTr", "no labelled images"),
    "name without channel": (
        lambda raw: shutil.copy(raw / U0, raw / "imagesUl/new.nii.gz"),
        "imagesUl/new.nii.gz",
        "the name has no channel; rename the file to new_0000.nii.gz, one file per channel",
    ),
    "another file format": (
        lambda raw: shutil.copy(raw / U0, raw / "imagesUl/new_0000.mha"),
        "imagesUl/new_0000.mha",
        "is not of the form",
    ),
    "missing channel in the middle": (
        lambda raw: (raw / U0).unlink(),
        U0,
        "this channel of case unlabelled_00 is missing",
    ),
    "missing last channel": (
        lambda raw: (raw / U1).unlink(),
        U0,
        "case unlabelled_00 has 1 channels where dataset.json names 2",
    ),
    "channel too many": (
        lambda raw: shutil.copy(raw / U1, raw / "imagesUl/unlabelled_00_0002.nii.gz"),
        "imagesUl/unlabelled_00_0002.nii.gz",
        "is more than the 2 that dataset.json names; remove it, or if the number belongs to the name of the case, add",
    ),
    "labelled and unlabelled": (
        lambda raw: rename_case(raw, "train_00"),
        "imagesUl/train_00_0000.nii.gz",
        "case train_00 is in imagesTr too; rename or remove one",
    ),
    "missing label": (
        lambda raw: (raw / "labelsTr/train_01.nii.gz").unlink(),
        "labelsTr/train_01.nii.gz",
        "label of case train_01 not found; add it, or move the image to imagesUl",
    ),
    "name ends in _seg": (
        lambda raw: rename_case(raw, "a_seg"),
        "imagesUl/a_seg_0000.nii.gz",
        "rename the case",
    ),
    "truncated image": (lambda raw: truncate(raw / U1), U1, "image of case unlabelled_00 cannot be read"),
    "first image is no image": (
        lambda raw: (raw / "imagesTr/train_00_0000.nii.gz").write_text("nothing"),
        "imagesTr/train_00_0000.nii.gz",
        "no reader of nnU-Net can open the image of case train_00",
    ),
    "truncated label": (
        lambda raw: truncate(raw / "labelsTr/train_01.nii.gz"),
        "labelsTr/train_01.nii.gz",
        "of case train_01 cannot be read",
    ),
    "not a number": (
        lambda raw: write_image(raw / U1, with_voxel(np.nan)),
        U1,
        "case unlabelled_00 has NaN or infinite voxels",
    ),
    "infinite": (lambda raw: write_image(raw / U0, with_voxel(np.inf)), U0, "has NaN or infinite voxels"),
    "too large to square": (lambda raw: write_image(raw / U0, with_voxel(-3e38)), U0, "has a voxel of 3e+38"),
    "only zeros": (
        lambda raw: write_both(raw, image(0.0)),
        U0,
        "case unlabelled_00 has no voxel but zeros",
    ),
    "channels of two sizes": (
        lambda raw: write_image(raw / U1, image(shape=(6, 8, 8))),
        U1,
        "6 x 8 x 8 voxels, but the first channel of case unlabelled_00 has 6 x 8 x 7; resample the channels",
    ),
    "channels of two spacings": (
        lambda raw: write_image(raw / U1, image(), spacing=(1.0, 1.0, 2.0)),
        U1,
        "spacing 1 1 2, but the first channel of case unlabelled_00 has 1 1 1; resample the channels to one grid",
    ),
    "label of another size": (
        lambda raw: write_image(raw / "labelsTr/train_00.nii.gz", np.ones((6, 8, 8), np.uint8)),
        "labelsTr/train_00.nii.gz",
        "6 x 8 x 8 voxels, but the image of case train_00 has 6 x 8 x 7",
    ),
    "unknown label": (
        lambda raw: write_image(raw / "labelsTr/train_00.nii.gz", np.full(SHAPE, 7, np.uint8)),
        "labelsTr/train_00.nii.gz",
        "case train_00 has the label 7, which dataset.json does not name",
    ),
    "a label that is no whole number": (
        lambda raw: write_image(raw / "labelsTr/train_00.nii.gz", np.full(SHAPE, 0.999, np.float32)),
        "labelsTr/train_00.nii.gz",
        "case train_00 has the label 0.999, which dataset.json does not name",
    ),
    "a negative label": (
        lambda raw: write_image(raw / "labelsTr/train_00.nii.gz", np.full(SHAPE, -1, np.int16)),
        "labelsTr/train_00.nii.gz",
        "case train_00 has the label -1, which dataset.json does not name",
    ),
    "names and values of labels exchanged": (
        lambda raw: edit_json(raw, labels={"0": "background", "1": "a"}),
        "dataset.json",
        "labels must be an object of names and whole numbers",
    ),
    "a link that leads back to itself": (
        lambda raw: link_to_itself(raw / U1),
        U1,
        "a link to unlabelled_00_0001.nii.gz, which is not there; repair or remove it",
    ),
    "no foreground": (empty_labels, "labelsTr", "no label has any foreground voxel"),
    "one value": (
        lambda raw: write_both(raw, np.full(SHAPE, -1000, np.float32)),
        U0,
        "case unlabelled_00 has the value -1000 in every voxel; replace or remove it",
    ),
    "four dimensions": (
        lambda raw: write_4d(raw / U0),
        U0,
        "6 channels where dataset.json names 2",
    ),
    "a picture among volumes": (
        lambda raw: write_both(raw, image(shape=(8, 7)), spacing=(1.0, 1.0)),
        U0,
        "case unlabelled_00 is 2D, but the first labelled case is 3D",
    ),
    "no dataset.json": (lambda raw: (raw / "dataset.json").unlink(), "dataset.json", "not found"),
    "broken dataset.json": (lambda raw: truncate(raw / "dataset.json"), "dataset.json", "cannot be read as JSON"),
    "a link to nothing among the unlabelled": (
        lambda raw: link_to_nothing(raw / U1),
        U1,
        "a link to moved.nii.gz, which is not there; repair or remove it",
    ),
    "a link to nothing among the labelled": (
        lambda raw: link_to_nothing(raw / "imagesTr/train_01_0000.nii.gz"),
        "imagesTr/train_01_0000.nii.gz",
        "a link to moved.nii.gz, which is not there",
    ),
    "a folder named like an image": (
        lambda raw: (raw / "imagesUl/new_0000.nii.gz").mkdir(),
        "imagesUl/new_0000.nii.gz",
        "is no file, but named like an image",
    ),
    "fewer labelled cases than named": (
        lambda raw: edit_json(raw, numTraining=3),
        "dataset.json",
        "numTraining is 3, but 2 labelled cases were found",
    ),
    "the channel is forgotten": (
        lambda raw: forget_channels(raw),
        "imagesUl/vol_0007.nii.gz",
        "if the number belongs to the name of the case, add _0000 before .nii.gz",
    ),
    "another ending": (
        lambda raw: edit_json(raw, file_ending=".nrrd"),
        "imagesTr",
        "no labelled images that end in .nrrd, but files that end in .nii.gz; correct file_ending",
    ),
    "channel_names is a list": (
        lambda raw: edit_json(raw, channel_names=["MR", "CT"]),
        "dataset.json",
        "channel_names must be an object of numbers and names",
    ),
    "numTraining is a text": (
        lambda raw: edit_json(raw, numTraining="2"),
        "dataset.json",
        "numTraining must be the number",
    ),
    "a label that is named like its image": (
        lambda raw: (raw / "labelsTr/train_01.nii.gz").rename(raw / "labelsTr/train_01_0001.nii.gz"),
        "imagesTr/train_01_0001.nii.gz",
        "its label is train_01_0001.nii.gz, so the name has no channel; rename the image to train_01_0001_0000.nii.gz",
    ),
    "a spacing that nothing has": (
        lambda raw: set_spacing(raw / U0, 1e9),
        U0,
        "a spacing of 1e+09 x 1 x 1 mm; no voxel is smaller than 1e-09 mm or larger than 1e+07 mm",
    ),
    "a colour label": (
        lambda raw: write_4d(raw / "labelsTr/train_00.nii.gz"),
        "labelsTr/train_00.nii.gz",
        "the label of case train_00 has 5 channels (a colour picture has 3); save it with one",
    ),
    "an unknown reader": (
        lambda raw: edit_json(raw, overwrite_image_reader_writer="SimpleItkIO"),
        "dataset.json",
        "overwrite_image_reader_writer is 'SimpleItkIO', no reader of nnU-Net; use one of NaturalImage2DIO",
    ),
    "a reader that is a number": (
        lambda raw: edit_json(raw, overwrite_image_reader_writer=3),
        "dataset.json",
        "overwrite_image_reader_writer is 3, no reader of nnU-Net",
    ),
    "an ending that nnU-Net does not read": (
        lambda raw: edit_json(raw, file_ending=".jpg"),
        "dataset.json",
        "file_ending is .jpg, which nnU-Net does not read; convert the files to one of .bmp, .gipl, .mha",
    ),
    "an ending without its dot": (
        lambda raw: edit_json(raw, file_ending="nii.gz"),
        "dataset.json",
        "file_ending must be the ending of the image files with its dot, as .nii.gz, got 'nii.gz'",
    ),
    "a channel that is a number": (
        lambda raw: edit_json(raw, channel_names={"0": 1, "1": 2}),
        "dataset.json",
        "channel_names must be an object of numbers and names",
    ),
    "a label that is a text": (
        lambda raw: edit_json(raw, labels={"background": 0, "a": "1"}),
        "dataset.json",
        "labels must be an object of names and whole numbers",
    ),
    "a case that is a text": (
        lambda raw: edit_json(raw, dataset={"train_00": "imagesTr/train_00_0000.nii.gz"}),
        "dataset.json",
        "dataset must be an object of cases, each with images (a list of files) and label (a file)",
    ),
    "a sidecar of no image": (
        lambda raw: (raw / "imagesUl/other.json").write_text("{}"),
        "imagesUl/other.json",
        "the name is not of the form <case>_0000.nii.gz",
    ),
    "file_ending is a list": (lambda raw: edit_json(raw, file_ending=[".nii"]), "dataset.json", "file_ending must be"),
    "labels is a list": (lambda raw: edit_json(raw, labels=["a"]), "dataset.json", "labels must be an object"),
    "a gap in the labels": (
        lambda raw: edit_json(raw, labels={"background": 0, "a": 1, "b": 3}),
        "dataset.json",
        "labels have the values 0, 1, 3, without 2; nnU-Net wants consecutive values",
    ),
    "a value twice": (
        lambda raw: edit_json(raw, labels={"background": 0, "a": 1, "also_a": 1}),
        "dataset.json",
        "the labels a and also_a have the same value 1",
    ),
    "an order of regions of other values": (
        lambda raw: edit_json(raw, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 3]),
        "dataset.json",
        "regions_class_order has the value 3, which no label has; it needs one for each of whole, core",
    ),
    "a short order of regions": (
        lambda raw: edit_json(raw, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1]),
        "dataset.json",
        "regions_class_order has 1 values; it needs one for each of whole, core",
    ),
    "label of another spacing": (
        lambda raw: write_image(raw / "labelsTr/train_00.nii.gz", np.ones(SHAPE, np.uint8), spacing=(3.0, 0.5, 0.5)),
        "labelsTr/train_00.nii.gz",
        "spacing 3 0.5 0.5, but the image of case train_00 has 1 1 1; a label map has to lie on the grid of the image",
    ),
    "label of another origin": (
        lambda raw: move(raw / "labelsTr/train_00.nii.gz"),
        "labelsTr/train_00.nii.gz",
        "origin 5 0 0, but the image of case train_00 has 0 0 0",
    ),
    "a spacing of 0 in the header": (
        lambda raw: set_spacing(raw / U0, 0.0),
        U0,
        "case unlabelled_00 has a spacing of 0 x 1 x 1 mm; it must be positive and finite; correct the header",
    ),
    "a spacing that is not a number": (
        lambda raw: set_spacing(raw / U0, float("nan")),
        U0,
        "a spacing of nan x 1 x 1 mm",
    ),
    "labels of a wrong form": (
        lambda raw: edit_json(raw, labels={"background": 0, "a": [1, 2], "b": 1}),
        "dataset.json",
        "labels are not nnU-Net's format",
    ),
}


def into_a_folder(images: Path) -> None:
    files = list(images.iterdir())
    (images / "batch_1").mkdir()
    for file in files:
        file.rename(images / "batch_1" / file.name)


def forget_channels(raw: Path) -> None:
    """A case whose name ends in a number, in one file without a channel."""
    (raw / "imagesUl/unlabelled_01_0001.nii.gz").unlink()
    (raw / "imagesUl/unlabelled_01_0000.nii.gz").rename(raw / "imagesUl/vol_0007.nii.gz")


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("moved.nii.gz")


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def move(file: Path, distance: float = 5.0) -> None:
    moved = SimpleITK.ReadImage(str(file))
    moved.SetOrigin((distance, 0.0, 0.0))
    SimpleITK.WriteImage(moved, str(file))


def turn(file: Path) -> None:
    """By half a turn around the last axis."""
    turned = SimpleITK.ReadImage(str(file))
    turned.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    SimpleITK.WriteImage(turned, str(file))


def set_spacing(file: Path, length: float) -> None:
    """Write the first of pixdim's lengths in a NIfTI-1 header (bytes 80 to 83)."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[80:84] = struct.pack("<f", length)
    file.write_bytes(gzip.compress(bytes(content)))


def write_4d(file: Path) -> None:
    """Five volumes in one file, which nnU-Net's reader takes for five channels."""
    volumes = [SimpleITK.GetImageFromArray(image()) for _ in range(5)]
    SimpleITK.WriteImage(SimpleITK.JoinSeries(volumes), str(file))


def snapshot(folder: Path) -> dict[Path, int]:
    """When each file was changed, but for locks."""
    files = (file for file in folder.rglob("*") if not file.is_dir() or file.is_symlink())
    return {file: file.lstat().st_mtime_ns for file in files if not file.name.startswith(".sfr_run.")}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_changes_nothing(raw: Path, mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    break_it, file, message = MISTAKES[mistake]
    break_it(raw)
    before = snapshot(raw.parent.parent)
    with pytest.raises(UserError) as error:
        plan_and_preprocess(NAME, sam="vit_tiny", fingerprint_processes=1, processes=1)
    assert str(error.value).startswith(str(raw / file) + ":")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(raw.parent.parent) == before
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize("differing", ["origin", "direction"])
def test_channels_in_different_places_are_refused(raw: Path, reader: type[BaseReaderWriter], differing: str) -> None:
    """The second channel of an unlabelled case; its voxels are as many and as large as those of the first."""
    edit_json(raw, overwrite_image_reader_writer=reader.__name__)
    if differing == "origin":
        move(raw / U1)
    else:
        turn(raw / U1)
    with pytest.raises(UserError) as error:
        check_cases(list_cases(raw), samples_per_case=10, processes=1)
    assert str(error.value).startswith(f"{raw / U1}: {differing} ")
    assert ", but the first channel of case unlabelled_00 has " in str(error.value)
    assert str(error.value).endswith("; resample the channels to one grid")


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_channels_whose_headers_are_rounded_otherwise_are_accepted(raw: Path, reader: type[BaseReaderWriter]) -> None:
    edit_json(raw, overwrite_image_reader_writer=reader.__name__)
    move(raw / U1, 1e-4)
    assert "unlabelled_00" in check_cases(list_cases(raw), samples_per_case=10, processes=1)


def test_channels_in_one_file_are_refused_as_nnunet_could_not_predict_them(raw: Path) -> None:
    """SimpleITK counts them as a fourth axis, which nnU-Net's writer does not take."""
    for first in [*raw.glob("images*/*_0000.nii.gz")]:
        second = first.with_name(first.name.replace("_0000", "_0001"))
        both = SimpleITK.JoinSeries([SimpleITK.ReadImage(str(file)) for file in (first, second)])
        second.unlink()
        SimpleITK.WriteImage(both, str(first))
    array, properties = SimpleITKIO().read_images([str(raw / U0)])
    with pytest.raises(AssertionError):
        SimpleITKIO().write_seg(array[0], str(raw / "label.nii.gz"), properties)
    with pytest.raises(UserError, match="case train_00 has four dimensions, of which nnU-Net cannot write label maps"):
        check_cases(list_cases(raw), samples_per_case=10, processes=1)


def test_an_unknown_label_is_told_from_the_one_beside_it(raw: Path) -> None:
    label = np.ones(SHAPE, np.float32)
    label[0, 0, 0] = np.nextafter(np.float32(1), np.float32(0))
    write_image(raw / "labelsTr/train_00.nii.gz", label)
    with pytest.raises(UserError, match=r"case train_00 has the label 0\.99999994, which dataset\.json does not name"):
        check_cases(list_cases(raw), samples_per_case=10, processes=1)


def test_several_bad_cases_are_counted(raw: Path) -> None:
    for file in (raw / "imagesUl").iterdir():
        truncate(file)
    truncate(raw / "labelsTr/train_00.nii.gz")
    with pytest.raises(UserError, match=r"train_00.*\(and 2 more cases\)$"):
        check_cases(list_cases(raw), samples_per_case=10, processes=1)


def test_cases_are_listed_with_their_files(raw: Path) -> None:
    listed = list_cases(raw)
    assert [case.identifier for case in listed.labelled] == ["train_00", "train_01"]
    assert [case.identifier for case in listed.unlabelled] == ["unlabelled_00", "unlabelled_01"]
    assert listed.labelled[1].images == tuple(raw / "imagesTr" / f"train_01_000{channel}.nii.gz" for channel in (0, 1))
    assert listed.labelled[1].label == raw / "labelsTr/train_01.nii.gz"
    assert listed.unlabelled[0].label is None


def test_hidden_files_among_the_unlabelled_are_passed_over(raw: Path) -> None:
    (raw / "imagesUl/.DS_Store").write_text("")
    assert len(list_cases(raw).unlabelled) == 2


def test_labelled_cases_may_be_named_in_dataset_json(raw: Path) -> None:
    """nnU-Net's key dataset: files anywhere, called anything."""
    (raw / "elsewhere").mkdir()
    for channel in range(2):
        shutil.move(raw / f"imagesTr/train_00_000{channel}.nii.gz", raw / f"elsewhere/image_{channel}.nii.gz")
    entry = {"images": ["elsewhere/image_0.nii.gz", "elsewhere/image_1.nii.gz"], "label": "labelsTr/train_00.nii.gz"}
    edit_json(raw, dataset={"first": entry}, numTraining=1)
    (case,) = list_cases(raw).labelled
    assert case.identifier == "first"
    assert case.images == (raw / "elsewhere/image_0.nii.gz", raw / "elsewhere/image_1.nii.gz")
    facts = check_cases(list_cases(raw), samples_per_case=10, processes=1)
    assert set(facts) == {"first", "unlabelled_00", "unlabelled_01"}


def test_facts_are_those_of_the_cropped_image(raw: Path) -> None:
    """A margin of zeros is cropped, as nnU-Net does."""
    array = image(0.0)
    array[1:5, 2:8, 1:7] = 3.0
    write_both(raw, array, spacing=(3.0, 2.0, 1.5))
    facts = check_cases(list_cases(raw), samples_per_case=10, processes=1)
    assert facts["unlabelled_00"].shape_after_crop == (4, 6, 6)
    assert facts["unlabelled_00"].spacing == (3.0, 2.0, 1.5)
    assert facts["unlabelled_00"].relative_size == pytest.approx(4 * 6 * 6 / (6 * 8 * 7))
    assert facts["unlabelled_00"].foreground == ()
    assert [len(channel) for channel in facts["train_00"].foreground] == [10, 10]
