"""What a review decides is on the disk: label maps on the raw grid, drafts, progress."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_sfr.corrections.label_maps import check_label_maps, find_label_maps
from nnunet_sfr.data.export import export_pseudo_labels
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.review.progress import Progress
from nnunet_sfr.review.session import Session
from tests.report.reported_project import CUBOID, SHIFTED, fill_model, fill_sam
from tests.review.reviewed_project import FIRST, SECOND, opened, read

SHAPE = (18, 22, 20)


def drawn(session: Session, source: str = "round_0") -> tuple[np.ndarray, bytes]:
    """The labels of a source in the viewer's axes with one voxel more, and the same packed."""
    labels = np.frombuffer(gzip.decompress(session.labels(FIRST, source)), np.uint8).reshape(SHAPE).copy()
    assert labels[2, 3, 4] == 0
    labels[2, 3, 4] = 1
    return labels, gzip.compress(labels.tobytes())


def test_save_accept_and_skip(project: SFRDataset, tmp_path: Path) -> None:
    export_pseudo_labels(
        PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid), project, tmp_path
    )
    pseudo = {case: read(tmp_path / f"{case}.nii.gz") for case in (FIRST, SECOND)}
    with opened(project) as session:
        assert session.decided == []
        labels, body = drawn(session)
        session.save(FIRST, body)
        session.accept(SECOND, "round_0")
        assert session.case_state(FIRST) == {
            "state": "corrected",
            "changed_voxels": 1,
            "has_draft": False,
            "is_deleted": False,
        }
        assert session.case_state(SECOND)["state"] == "accepted"
    folder = project.paths.review / "corrected"
    # the viewer has the patient's right and front where the file of these images has left and back
    np.testing.assert_array_equal(read(folder / f"{FIRST}.nii.gz"), labels[:, ::-1, ::-1])
    np.testing.assert_array_equal(read(folder / f"{SECOND}.nii.gz"), pseudo[SECOND])
    changed = np.argwhere(read(folder / f"{FIRST}.nii.gz") != pseudo[FIRST])
    assert changed.tolist() == [[2, 22 - 1 - 3, 20 - 1 - 4]]
    image, label = (
        SimpleITK.ReadImage(str(file))
        for file in (project.paths.raw_unlabelled / f"{FIRST}_0000.nii.gz", folder / f"{FIRST}.nii.gz")
    )
    assert (label.GetOrigin(), label.GetDirection()) == (image.GetOrigin(), image.GetDirection())
    check_label_maps(
        find_label_maps_of_one(folder, project), list_cases(project.paths.raw), processes=1
    )  # as sfr_add_labels takes them

    with opened(project) as session:
        assert session.decided == [FIRST, SECOND]
        session.skip(FIRST)
        assert session.case_state(FIRST)["state"] == "skipped"
        assert not (folder / f"{FIRST}.nii.gz").exists()
        assert gzip.decompress(session.labels(FIRST, "current")) == labels.tobytes()  # nothing is lost


def test_skipping_takes_back_what_belongs_to_the_label_map(tmp_path: Path) -> None:
    """Tiff3DIO writes the spacing into a file of its own, which sfr_add_labels would take for somebody's."""
    progress = Progress(tmp_path, ".tif")
    progress.corrected.mkdir()
    names = ["a.json", "a.tif", "b.json", "b.tif"]
    for name in names:
        (progress.corrected / name).write_text("{}")
    progress.remove_label("a")
    assert sorted(file.name for file in progress.corrected.iterdir()) == names[2:]


@pytest.mark.parametrize("damage", ["cut short", "changed"])
def test_a_damaged_draft_is_named(damage: str, tmp_path: Path) -> None:
    progress = Progress(tmp_path, ".nii.gz")
    progress.write_draft("a", np.arange(1000))
    file = tmp_path / "drafts" / "a.npz"
    content = bytearray(file.read_bytes())
    if damage == "changed":
        content[100:110] = bytes(10)
    file.write_bytes(content[:200] if damage == "cut short" else content)
    with pytest.raises(UserError, match=r"a\.npz: the draft of case a is damaged \(.*\); delete it"):
        progress.read_draft("a")


def find_label_maps_of_one(folder: Path, project: SFRDataset) -> dict[str, Path]:
    """Both cases have a label map, and sfr_add_labels wants one unlabelled case to stay."""
    with pytest.raises(UserError, match="labels every unlabelled case"):
        find_label_maps(folder, list_cases(project.paths.raw))
    return {FIRST: folder / f"{FIRST}.nii.gz"}


def test_a_draft_outlives_the_process(project: SFRDataset) -> None:
    with opened(project) as session:
        labels, body = drawn(session)
        session.save_draft(FIRST, body)
    with opened(project) as session:
        assert session.case_to_json(FIRST)["start"] == "current"
        assert session.case_state(FIRST)["has_draft"]
        assert gzip.decompress(session.labels(FIRST, "current")) == labels.tobytes()
        session.save(FIRST, gzip.compress(bytes(len(labels.tobytes()))))
        assert not session.case_state(FIRST)["has_draft"]


def test_a_refused_upload_leaves_what_was_saved(project: SFRDataset) -> None:
    with opened(project) as session:
        _, body = drawn(session)
        session.save(FIRST, body)
        before = (project.paths.review / "corrected" / f"{FIRST}.nii.gz").read_bytes()
        for bad in (b"", gzip.compress(b"short"), gzip.compress(bytes([2] * int(np.prod(SHAPE))))):
            for take in (session.save, session.save_draft):
                with pytest.raises(UserError, match="nothing was changed"):
                    take(FIRST, bad)
        assert (project.paths.review / "corrected" / f"{FIRST}.nii.gz").read_bytes() == before
        assert not session.case_state(FIRST)["has_draft"]


def test_sources_and_order(project: SFRDataset) -> None:
    fill_sam(project, {FIRST: CUBOID, SECOND: CUBOID}, round_index=1)
    fill_model(project, {FIRST: SHIFTED, SECOND: CUBOID})
    with opened(project) as session:
        description = session.to_json()
        assert [(source["key"], source["short"]) for source in description["sources"]] == [
            ("round_1_model", "Network"),
            ("round_1", "SAM"),
        ]
        # the square of its own agreement under flips, times that with SAM: 0.81 x 2/3 and 0.36 x 0.5
        assert [(case["name"], case["confidence"]) for case in description["cases"]] == [
            (SECOND, pytest.approx(0.18)),
            (FIRST, pytest.approx(0.54)),
        ]
        assert "low confidence 0.18 (re-trained model)" in description["cases"][0]["reasons"]
        sizes = [
            np.count_nonzero(np.frombuffer(gzip.decompress(session.labels(FIRST, key)), np.uint8))
            for key in ("round_1_model", "round_1")
        ]
        assert sizes == [120, 240]


def test_the_list_of_the_report_comes_first_while_it_is_newer(project: SFRDataset) -> None:
    report = project.paths.report("all") / "annotate_next.csv"
    report.parent.mkdir(parents=True)
    report.write_text(f"rank,case,images,reasons\n1,{SECOND},,because; of this\n2,gone,,no longer there\n")
    with opened(project) as session:
        assert [case["name"] for case in session.to_json()["cases"]] == [SECOND, FIRST]
        assert list(session.to_json()["cases"][0]["reasons"]) == ["because", "of this"]
    os.utime(report, (1, 1))
    with opened(project) as session:
        assert [case["name"] for case in session.to_json()["cases"]] == [FIRST, SECOND]


def test_no_volume_is_read_before_a_case_is_opened(project: SFRDataset) -> None:
    store = project.paths.pseudo_labels("all")
    for file in [*store.glob("*.b2nd"), *project.paths.unlabelled.glob("*.b2nd")]:
        file.write_bytes(b"not a volume")
    with opened(project) as session:
        assert len(session.to_json()["cases"]) == 2
        with pytest.raises(UserError, match="damaged"):
            session.labels(FIRST, "round_0")


def test_what_went_wrong_meanwhile_is_one_line(project: SFRDataset) -> None:
    (project.paths.pseudo_labels("all") / f"{SECOND}.json").unlink()
    with opened(project) as session:
        _, body = drawn(session)
        session.save(FIRST, body)
        (project.paths.review / "corrected" / f"{FIRST}.nii.gz").unlink()
        assert session.case_to_json(FIRST)["state"] == "open"
        assert "has been deleted; the case is open again" in session.case_to_json(FIRST)["note"]
        assert session.decided == []

        assert session.case_to_json(SECOND)["start"] == ""
        with pytest.raises(UserError, match="has no pseudo-label to accept"):
            session.accept(SECOND, "round_0")
        with pytest.raises(UserError, match="no labels of round_0"):
            session.labels(SECOND, "round_0")
        session.save(SECOND, gzip.compress(bytes(19 * 23 * 21)))  # drawn from nothing
        assert session.case_state(SECOND)["state"] == "corrected"

        image = project.paths.raw_unlabelled / f"{FIRST}_0000.nii.gz"
        content = image.read_bytes()
        image.write_bytes(content[:100])
        with pytest.raises(UserError, match="changed since case unlabelled_00 was preprocessed"):
            session.image(FIRST, 0)
        image.unlink()
        with pytest.raises(UserError, match="the image of case unlabelled_00 is not there"):
            session.save(FIRST, body)


def test_progress_that_cannot_be_read_or_written(project: SFRDataset) -> None:
    folder = project.paths.review
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text('{"cases": {"a": {"colour": 1}}}')
    with pytest.raises(UserError, match=r"progress\.json: is not what sfr_review writes"), opened(project):
        pass
    (folder / "progress.json").write_text(json.dumps({"cases": {}}))
    (folder / "drafts").write_text("a file in the place of the folder")
    with opened(project) as session, pytest.raises(UserError, match=r"SFR_review.*(permission|remove it)"):
        session.save_draft(FIRST, drawn(session)[1])
