"""Which stages are complete, step by step and round by round."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.doctor.findings import Finding
from nnunet_sfr.doctor.next_step import next_step
from nnunet_sfr.doctor.raw_folders import read_folders
from nnunet_sfr.doctor.stages import (
    check_adapter,
    check_models,
    check_preprocessed,
    check_pseudo_labels,
    check_rounds,
)
from nnunet_sfr.doctor.subject import NamedDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import CACHE_VARIABLE, FINAL_ADAPTER, FINE_TUNING_STATE
from nnunet_sfr.sam_models import MODELS
from nnunet_sfr.sam_stage import weights
from nnunet_sfr.sam_stage.model import adapter_metadata, build_stitched_sam, save_adapter
from nnunet_sfr.sam_stage.recipe import fine_tuning_recipe
from nnunet_sfr.sam_stage.rounds import Round
from nnunet_sfr.selection import Selection
from tests.doctor.levels import levels, only
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, change_settings, fill_store

ARGUMENTS = "-d 42 -c 3d_fullres -f all -p nnUNetPlansCPU"


def write_adapter(dataset: SFRDataset, round_index: int = 0) -> Path:
    """That of the first axis across which patches are cut into slices."""
    file = dataset.paths.sam_stage("all", round_index) / FINAL_ADAPTER
    recipe = fine_tuning_recipe(dataset, "all", Round(dataset.settings.fine_tuning, None))  # type: ignore[arg-type]
    save_adapter(build_stitched_sam(dataset), dataset, file, recipe=recipe)
    return file


def check_store(dataset: SFRDataset) -> list[Finding]:
    return check_pseudo_labels(dataset, dataset.paths.pseudo_labels("all"), "label them")


def copy_store(dataset: SFRDataset, folder: Path, identifiers: tuple[str, ...]) -> None:
    """The project's pseudo-labels of some cases as another store."""
    source = fill_store(dataset)
    store = PseudoLabelStore.create(folder, grid=dataset.grid, made_by=Provenance(source="retraining"))
    for identifier in identifiers:
        store.write(
            identifier,
            source.read_labels(identifier),
            source.read_confidence(identifier),
            label_manager=dataset.label_manager,
            patch_size=dataset.configuration_manager.patch_size,
        )


def test_commands_name_everything(project: SFRDataset) -> None:
    assert shell_text(CommandLines.of(project.paths, "all").fine_tune()) == f"sfr_finetune {ARGUMENTS}"
    assert shell_text(CommandLines.of(project.paths, "all").select(2)) == f"sfr_select {ARGUMENTS} --round 2"


def test_preprocessed_cases(project: SFRDataset) -> None:
    raw = read_folders(project.paths.raw)
    (finding,) = check_preprocessed(project, raw)
    assert (finding.level.value, finding.text) == ("ok", "3 of 3 labelled, 2 of 2 unlabelled")
    assert check_preprocessed(project, None) == [finding], "without raw data what is there counts"
    for file in project.paths.unlabelled.glob("unlabelled_01*"):
        file.unlink()
    finding = only(check_preprocessed(project, raw), "note")
    assert (finding.text, finding.details) == ("3 of 3 labelled, 1 of 2 unlabelled", ("unlabelled_01",))
    for file in project.paths.raw.glob("*/train_02*"):
        file.unlink()
    finding = only(check_preprocessed(project, read_folders(project.paths.raw)), "problem")
    assert finding.text.endswith("1 that are no longer in the raw data: train_02")


def test_adapter(project: SFRDataset) -> None:
    finding = only(check_adapter(project, "all"), "note")
    assert (finding.text, finding.remedy) == ("none yet", f"sfr_finetune {ARGUMENTS}")
    folder = project.paths.sam_stage("all")
    folder.mkdir(parents=True)
    (folder / FINE_TUNING_STATE).write_text("")
    assert only(check_adapter(project, "all"), "note").text == "begun, not complete"
    file = write_adapter(project)
    (finding,) = check_adapter(project, "all")
    assert (finding.level.value, finding.text) == ("ok", str(file))


def test_every_axis_of_slices_has_its_adapter(project: SFRDataset) -> None:
    """An axis that is added after fine-tuning has none yet."""
    shutil.rmtree(project.paths.pseudo_labels("all"))
    first = write_adapter(project)
    change_settings(project, {"stitching": {"slice_axes": [0, 1]}})
    dataset = open_dataset(NAME, "3d_fullres", PLANS)
    subject = NamedDataset("42", "3d_fullres", PLANS, "all", "cpu")
    there, added = check_adapter(dataset, "all")
    assert (there.level.value, there.text) == ("ok", str(first))
    assert (added.level.value, added.text) == ("note", "none yet across axis 1")
    assert added.remedy == f"sfr_finetune {ARGUMENTS}"
    assert next_step(subject, [], "cpu")[1][0] == "sfr_finetune"
    second = write_adapter(dataset.planes[1])
    assert [finding.text for finding in check_adapter(dataset, "all")] == [str(first), str(second)]
    assert next_step(subject, [], "cpu")[1][0] == "sfr_pseudolabel"
    (dataset.planes[1].paths.sam_stage("all", 1)).mkdir()
    (round_1,) = check_rounds(dataset, "all")
    assert "adapter: none yet; adapter: none yet across axis 1" in round_1.text


def test_an_adapter_of_other_settings_and_a_damaged_one(project: SFRDataset) -> None:
    file = write_adapter(project)
    change_settings(project, {"stitching": {"canvas_size": 192}})
    changed = open_dataset(NAME, "3d_fullres", PLANS)
    finding = only(check_adapter(changed, "all"), "problem")
    assert finding.text.endswith("made for canvas_size 128, the plan has 192")
    assert finding.remedy.startswith(f"sfr_finetune {ARGUMENTS} --overwrite")
    file.write_bytes(b"no adapter")
    with pytest.raises(UserError, match="is not a safetensors file"):
        check_adapter(project, "all")


def test_an_adapter_from_before_a_setting_or_a_case_changed(project: SFRDataset) -> None:
    """sfr_finetune refuses it, and sfr_run makes it again."""
    shutil.rmtree(project.paths.pseudo_labels("all"))  # which are another source's
    file = write_adapter(project)
    subject = NamedDataset("42", "3d_fullres", PLANS, "all", "cpu")
    assert next_step(subject, [], "cpu")[1][0] == "sfr_pseudolabel"
    change_settings(project, {"fine_tuning": {"iterations": 7}})
    changed = open_dataset(NAME, "3d_fullres", PLANS)
    finding = only(check_adapter(changed, "all"), "note")
    names = "fine_tuning.iterations, fine_tuning.warmup_iterations"
    assert finding.text == f"{file}: since it was made, {names} changed"
    assert finding.remedy == f"sfr_finetune {ARGUMENTS} --overwrite"
    what, command = next_step(subject, [], "cpu")
    assert (what, command[0], command[-1]) == ("fine-tune SAM again", "sfr_finetune", "--overwrite")
    change_settings(project, {"fine_tuning": {"iterations": project.settings.fine_tuning.iterations}})
    for ending in (".pkl", ".b2nd", "_seg.b2nd"):
        shutil.copy(project.paths.labelled / f"train_00{ending}", project.paths.labelled / f"train_99{ending}")
    finding = only(check_adapter(open_dataset(NAME, "3d_fullres", PLANS), "all"), "note")
    assert finding.text.endswith("since it was made, cases changed")


def test_an_adapter_of_other_labels(project: SFRDataset) -> None:
    write_adapter(project)
    file = project.paths.labelled / "train_01.pkl"
    properties = pickle.loads(file.read_bytes())
    file.write_bytes(
        pickle.dumps({**properties, "nnunet_sfr": {**properties["nnunet_sfr"], "inputs": "another label"}})
    )
    finding = only(check_adapter(project, "all"), "problem")
    assert finding.text.endswith("learned from another image or label of train_01")
    assert finding.remedy == f"sfr_finetune {ARGUMENTS} --overwrite"


def test_an_adapter_is_compared_without_fetching_the_weights(
    project: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a published SAM that was fine-tuned on another machine."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the doctor must not fetch anything")

    monkeypatch.setattr(weights, "download_url_to_file", refuse)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    model = build_stitched_sam(project)  # any will do: the doctor reads what is said of it
    change_settings(project, {"sam": {"model": "vit_b", "adaptation": "lora", "adaptation_settings": {}}})
    dataset = open_dataset(NAME, "3d_fullres", PLANS)
    file = dataset.paths.sam_stage("all") / FINAL_ADAPTER
    published = MODELS["vit_b"].weights
    assert published is not None
    save_adapter(model, dataset, file)
    (finding,) = check_adapter(dataset, "all")
    assert finding.level.value == "ok"
    save_file(load_file(file), file, {**adapter_metadata(dataset), "weights_sha256": "another"})
    finding = only(check_adapter(dataset, "all"), "problem")
    assert finding.text.endswith(f"made for weights_sha256 another, the plan has {published.sha256}")
    assert not (tmp_path / "cache").exists()


def test_pseudo_labels(project: SFRDataset) -> None:
    (finding,) = check_store(project)
    assert (finding.level.value, finding.text) == ("ok", "2 of 2 cases, by threshold")
    store = project.paths.pseudo_labels("all")
    (store / "unlabelled_00.json").unlink()
    finding = only(check_store(project), "note")
    assert (finding.text, finding.remedy) == ("1 of 2 cases, by threshold", "label them")
    assert finding.details == ("unlabelled_00",)
    (store / "manifest.json").unlink()
    assert only(check_store(project), "note").text == "none yet"


def test_empty_pseudo_labels_are_noted(project: SFRDataset) -> None:
    store = project.paths.pseudo_labels("all")
    for case in ("unlabelled_00", "unlabelled_01"):
        record = json.loads((store / f"{case}.json").read_text(encoding="utf-8"))
        (store / f"{case}.json").write_text(json.dumps({**record, "class_voxels": {"0": 9, "1": 0}}))
    finding = only(check_store(project), "note")
    assert finding.text == (
        "2 of 2 cases, by threshold; 1 of 1 classes found in none of the 2 cases: class_1; no foreground in 2 of 2 "
        "cases: unlabelled_00, unlabelled_01"
    )
    assert finding.remedy == f"sfr_report {ARGUMENTS}"


def test_pseudo_labels_that_do_not_fit_the_data(project: SFRDataset) -> None:
    store = project.paths.pseudo_labels("all")
    record = json.loads((store / "unlabelled_00.json").read_text(encoding="utf-8"))
    (store / "unlabelled_00.json").write_text(json.dumps({**record, "input": "another image"}))
    with pytest.raises(UserError, match="the image of unlabelled_00 changed"):
        check_store(project)
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    manifest["grid"]["spacing"] = [9.0, 9.0, 9.0]
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"made for spacing \[9\.0"):
        check_store(project)


def test_models(project: SFRDataset) -> None:
    assert only(check_models(project, "all"), "note").text == "none yet"
    suffix = f"__{PLANS}__3d_fullres"
    for model, fold, checkpoint in (
        (f"nnUNetTrainer{suffix}", "all", "checkpoint_final.pth"),
        (f"nnUNetTrainerSFR_MT_5epochs{suffix}", "all", "checkpoint_final.pth"),
        (f"nnUNetTrainerSFR_ST{suffix}", "all", "checkpoint_latest.pth"),
        (f"nnUNetTrainer_ST{suffix}", "0", "checkpoint_final.pth"),
        ("nnUNetTrainer_MT__nnUNetPlans__3d_fullres", "all", "checkpoint_final.pth"),
    ):
        folder = project.paths.results / model / f"fold_{fold}"
        folder.mkdir(parents=True)
        (folder / checkpoint).write_text("")
    trained, unfinished = check_models(project, "all")
    assert (trained.level.value, trained.text) == ("ok", "nnUNetTrainer, nnUNetTrainerSFR_MT_5epochs")
    assert (unfinished.level.value, unfinished.text) == ("note", "begun, not complete: nnUNetTrainerSFR_ST")


def test_rounds(project: SFRDataset) -> None:
    assert check_rounds(project, "all") == []
    paths, pool = project.paths, tuple(UnlabelledDataset(project.paths.unlabelled).identifiers)
    copy_store(project, paths.model_pseudo_labels("all", 1), pool)
    finding = only(check_rounds(project, "all"), "note")
    assert finding.text.startswith(
        "model's labels: 2 of 2 cases, by re-trained model; selection: none yet; adapter: none yet"
    )
    assert finding.remedy == f"sfr_select {ARGUMENTS} --round 1"
    Selection(high=pool[:1], low=pool[1:]).save(paths.selection("all", 1))
    adapter = write_adapter(project, 1)
    assert only(check_rounds(project, "all"), "note").remedy == f"sfr_pseudolabel {ARGUMENTS} --round 1"
    copy_store(project, paths.pseudo_labels("all", round_index=1), pool)
    (finding,) = check_rounds(project, "all")
    assert finding.level.value == "ok"
    assert "selection: 1 high, 1 low" in finding.text
    assert str(adapter) in finding.text
    copy_store(project, paths.model_pseudo_labels("all", 2), pool[:1])
    assert levels(check_rounds(project, "all")) == ["ok", "note"]
    Selection(high=pool, low=pool).save(paths.selection("all", 1))
    with pytest.raises(UserError, match="does not divide the unlabelled cases"):
        check_rounds(project, "all")
