"""TIFF volumes: files with the spacing go with pseudo-labels that are exported and with labels that come back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nnunet_sfr.corrections.add_labels import add_labels
from nnunet_sfr.corrections.planned import require_planned_from
from nnunet_sfr.data.export import export_pseudo_labels
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.labelling.from_images import label_from_images
from tests.tiff_dataset import SPACING, turn_into_tiff
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import fill_store, nnunet_folders, plan_project


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_spacings_go_round(tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", labelled=2, unlabelled=3)
        raw = tmp_path / "nnUNet_raw" / NAME
        turn_into_tiff(raw)
        dataset = plan_project()
        export_pseudo_labels(fill_store(dataset), dataset, tmp_path / "exported")
        cases = [f"unlabelled_0{index}" for index in range(3)]
        assert names(tmp_path / "exported") == sorted(f"{case}{end}" for case in cases for end in (".json", ".tif"))
        assert json.loads((tmp_path / "exported" / f"{cases[0]}.json").read_text(encoding="utf-8")) == {
            "spacing": SPACING
        }

        shutil.rmtree(dataset.paths.pseudo_labels("all"))
        assert label_from_images(dataset, "all", folder=tmp_path / "exported").identifiers() == cases

        for name in names(tmp_path / "exported"):
            if name.startswith(cases[2]):
                (tmp_path / "exported" / name).unlink()
        add_labels(NAME, tmp_path / "exported", typed="sfr_add_labels")
        added = [f"{case}.json" for case in ("train_00", "train_01", *cases[:2])]
        for folder in (raw / "imagesTr", raw / "labelsTr", dataset.paths.preprocessed / "gt_segmentations"):
            assert [name for name in names(folder) if name.endswith(".json")] == added, folder
        assert names(raw / "imagesUl") == [f"{cases[2]}.json", f"{cases[2]}_0000.tif"]
        assert not [entry for entry in raw.iterdir() if entry.name.startswith(".")]
        listed = list_cases(raw)
        assert len(listed.labelled) == 4
        require_planned_from(listed)
