"""The SFR plan: what it accepts, what it refuses, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.plans import DERIVED_FROM_KEYS, SFRConfiguration, derived_from, load_configuration, save_configuration
from nnunet_sfr.settings import (
    FineTuningSettings,
    PseudoLabelSettings,
    RetrainingSettings,
    SAMSettings,
    StitchingSettings,
    section_from_dict,
)

NNUNET_PLANS = {"transpose_forward": (0, 1, 2)}
NNUNET_CONFIGURATION = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "spacing": (2.5, 2.5, 2.5),
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
}


def configuration() -> SFRConfiguration:
    return SFRConfiguration(
        stitching=StitchingSettings(patch_size=(80, 112, 112), canvas_size=1024),
        sam=SAMSettings(model="vit_b", adaptation="lora"),
        retraining=RetrainingSettings(epochs=7),
        derived_from=derived_from(NNUNET_PLANS, NNUNET_CONFIGURATION),
    )


def save(file: Path, **changes: Any) -> Path:
    save_configuration(
        file,
        dataset_name="Dataset001_A",
        plans_name="nnUNetPlans",
        configuration="3d_fullres",
        settings=configuration(),
    )
    content = json.loads(file.read_text())
    for section, values in changes.items():
        content["configurations"]["3d_fullres"].setdefault(section, {}).update(values)
    file.write_text(json.dumps(content))
    return file


def load(file: Path, **changes: Any) -> SFRConfiguration:
    return load_configuration(
        file, "3d_fullres", nnunet_plans=NNUNET_PLANS, nnunet_configuration={**NNUNET_CONFIGURATION, **changes}
    )


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    loaded = load(save(tmp_path / "plan.json"))
    assert loaded == configuration()
    assert loaded.stitching.patch_size == (80, 112, 112)


def test_saving_keeps_the_other_configurations(tmp_path: Path) -> None:
    file = save(tmp_path / "plan.json")
    save_configuration(
        file, dataset_name="Dataset001_A", plans_name="nnUNetPlans", configuration="2d", settings=configuration()
    )
    assert sorted(json.loads(file.read_text())["configurations"]) == ["2d", "3d_fullres"]


def test_an_edited_value_is_used(tmp_path: Path) -> None:
    assert load(save(tmp_path / "plan.json", retraining={"consistency_weight": 1})).retraining.consistency_weight == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retraining": {"ema_decay": 1.5}}, "retraining: ema_decay must lie in [0, 1), got 1.5"),
        ({"retraining": {"epochs": "ten"}}, "retraining: epochs must be of type int, got 'ten'"),
        ({"retraining": {"epochs": True}}, "retraining: epochs must be of type int, got True"),
        ({"retraining": {"epoch": 10}}, "retraining: unknown setting epoch (known: epochs,"),
        (
            {"stitching": {"patch_size": [128, 128, 128]}},
            "holds 8 x 8 slices of 128 x 128, but patch_size asks for 128",
        ),
        ({"stitching": {"patch_size": [8, 8]}}, "stitching: patch_size must be a list of 3 numbers, got [8, 8]"),
        ({"sam": {"model": "vit_x"}}, "sam: model must be one of vit_tiny, vit_b, vit_l, vit_h, got 'vit_x'"),
        ({"sam": {"model": "vit_tiny"}}, "vit_tiny has no pre-trained weights to keep"),
        ({"fine_tuning": {"betas": [0.9]}}, "fine_tuning: betas must be a list of 2 numbers, got [0.9]"),
        ({"pseudo_labels": {"tile_step_size": 0}}, "pseudo_labels: tile_step_size must lie in (0, 1], got 0.0"),
        ({"colours": {}}, "unknown section colours"),
    ],
)
def test_bad_values_are_one_line(tmp_path: Path, changes: Any, said: str) -> None:
    file = save(tmp_path / "plan.json", **changes)
    with pytest.raises(UserError) as caught:
        load(file)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{file}: configuration 3d_fullres: ")
    assert "\n" not in str(caught.value)


def test_a_changed_target_spacing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"made for spacing \[2.5, 2.5, 2.5\], but the nnU-Net plan now has \[1.0, 1.0"):
        load(save(tmp_path / "plan.json"), spacing=(1.0, 1.0, 1.0))


def test_missing_files_and_configurations_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no SFR plan yet; run sfr_plan_and_preprocess with -c 3d_fullres"):
        load(tmp_path / "plan.json")
    file = save(tmp_path / "plan.json")
    with pytest.raises(UserError, match=r"no configuration 2d \(it has 3d_fullres\)"):
        load_configuration(file, "2d", nnunet_plans=NNUNET_PLANS, nnunet_configuration=NNUNET_CONFIGURATION)
    file.write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load(file)
    file.write_text("[]")
    with pytest.raises(UserError, match="is not an SFR plan"):
        load(file)


@pytest.mark.parametrize("section", [SAMSettings, FineTuningSettings, PseudoLabelSettings, RetrainingSettings])
def test_defaults_pass_their_own_checks(section: type) -> None:
    assert section_from_dict(section, {}) == section()


def test_what_a_plan_was_derived_from_has_json_types() -> None:
    values = derived_from(NNUNET_PLANS, NNUNET_CONFIGURATION)
    assert set(values) == {*DERIVED_FROM_KEYS, "transpose_forward"}
    assert values["spacing"] == [2.5, 2.5, 2.5]
    assert values["transpose_forward"] == [0, 1, 2]
