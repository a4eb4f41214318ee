"""The SFR plan: what it accepts, what it refuses, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.plans import DERIVED_FROM_KEYS, SFRConfiguration, derived_from, load_configuration, save_configuration
from nnunet_sfr.sam_models import MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS
from nnunet_sfr.settings import (
    FineTuningSettings,
    PseudoLabelSettings,
    RetrainingSettings,
    SAMSettings,
    StitchingSettings,
    section_from_dict,
)
from nnunet_sfr.trainers.methods import ACMTSettings, ICTSettings, MagicNetSettings, STSettings

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
    content = json.loads(file.read_text(encoding="utf-8"))
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
    assert sorted(json.loads(file.read_text(encoding="utf-8"))["configurations"]) == ["2d", "3d_fullres"]


def test_an_edited_value_is_used(tmp_path: Path) -> None:
    assert load(save(tmp_path / "plan.json", retraining={"consistency_weight": 1})).retraining.consistency_weight == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retraining": {"ema_decay": 1.5}}, "retraining: ema_decay must lie in [0, 1), got 1.5"),
        ({"retraining": {"epochs": "ten"}}, "retraining: epochs must be of type int, got 'ten'"),
        ({"retraining": {"epochs": True}}, "retraining: epochs must be of type int, got True"),
        ({"retraining": {"epoch": 10}}, "retraining: unknown setting epoch (known: acmt,"),
        (
            {"stitching": {"patch_size": [128, 128, 128]}},
            "holds 8 x 8 slices of 128 x 128, but patch_size asks for 128",
        ),
        ({"stitching": {"patch_size": [8, 8]}}, "stitching: patch_size must be a list of 3 numbers, got [8, 8]"),
        ({"sam": {"model": "vit_x"}}, f"sam: model must be one of {', '.join(MODELS)}, got 'vit_x'"),
        ({"sam": {"adaptation": "all"}}, f"sam: adaptation must be one of {', '.join(ADAPTATIONS)}, got 'all'"),
        ({"sam": {"adaptation_settings": {"rank": 0}}}, "sam: adaptation_settings of lora: rank must be at least 1"),
        ({"sam": {"adaptation_settings": {"rnk": 4}}}, "adaptation_settings of lora: unknown setting rnk (known: rank"),
        ({"sam": {"adaptation_settings": [4]}}, "sam: adaptation_settings must be an object, got [4]"),
        ({"sam": {"adaptation": "decoder"}}, "sam: adaptation_settings of decoder: unknown setting rank"),
        ({"sam": {"window": [240, -160]}}, "sam: window must rise, got (240.0, -160.0)"),
        ({"stitching": {"scale": [1, 2, 2]}}, "holds 4 x 4 slices of 224 x 224, but patch_size asks for 80 (80 x 112"),
        ({"stitching": {"scale": [1, 0, 1]}}, "stitching: scale needs three finite positive factors"),
        ({"sam": {"model": "vit_tiny"}}, "vit_tiny has no pre-trained weights to keep"),
        ({"fine_tuning": {"betas": [0.9]}}, "fine_tuning: betas must be a list of 2 numbers, got [0.9]"),
        ({"pseudo_labels": {"tile_step_size": 0}}, "pseudo_labels: tile_step_size must lie in (0, 1], got 0.0"),
        ({"fine_tuning": {"learning_rate": float("inf")}}, "learning_rate must be a finite number, got inf"),
        ({"retraining": {"ict": {"alpha": float("nan")}}}, "retraining: ict: alpha must be a finite number, got nan"),
        ({"fine_tuning": {"iterations": 10**400}}, "iterations must be at most 9223372036854775807, got a larger"),
        ({"fine_tuning": {"weight_decay": 10**400}}, "weight_decay must be a finite number, got a larger one"),
        (
            {"retraining": {"st": {"relabel_at": [float("nan")]}}},
            "st: relabel_at must be a finite number, got nan",
        ),
        ({"fine_tuning": {"seed": 2**32}}, "fine_tuning: seed must lie between 0 and 4294967295, got 4294967296"),
        ({"retraining": {"st": {"relabel_at": [2]}}}, "retraining: st: relabel_at must be rising shares of the run"),
        ({"retraining": {"magicnet": {"cubes": 3}}}, "retraining: magicnet: unknown setting cubes (known: cubes_per"),
        ({"retraining": {"magicnet": 3}}, "retraining: magicnet: expected an object, got int"),
        (
            {"retraining": {"ict_alpha": 1.0, "ict": {"alpha": 0.5}}},
            "retraining: ict_alpha is ict.alpha now, which is there too; remove ict_alpha",
        ),
        ({"retraining": {"seed": -1}}, "retraining: seed must lie between 0 and 4294967295, got -1"),
        ({"fine_tuning": {"warmup_fraction": 1}}, "fine_tuning: warmup_fraction must lie in [0, 1), got 1.0"),
        ({"fine_tuning": {"warmup_iterations": 9}}, "are one setting; remove warmup_iterations"),
        ({"rounds": {"fine_tuning_fraction": 50}}, "fine_tuning_fraction must lie above 0 and at most at 10, got 50.0"),
        (
            {"rounds": {"retraining_fraction": 1e308}},
            "retraining_fraction must lie above 0 and at most at 10, got 1e+308",
        ),
        ({"rounds": {"retraining_fraction": 0}}, "retraining_fraction must lie above 0 and at most at 10, got 0.0"),
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


@pytest.mark.parametrize(("value", "said"), [(None, "null"), ([], "a list"), ("spacing", "'spacing'")])
def test_what_a_plan_was_derived_from_is_an_object(tmp_path: Path, value: Any, said: str) -> None:
    file = save(tmp_path / "plan.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"]["derived_from"] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}: configurations.3d_fullres.derived_from: expected an object, got {said}; correct it, or delete it and "
        "plan again"
    )


def of_version_0_1(sam: Any) -> Any:
    """A configuration as version 0.1 wrote it: no scale, no window, and the rank of LoRA whatever the adaptation."""
    values = configuration().to_dict()
    del values["stitching"]["scale"]
    for name in ("views", "activation_checkpointing", "max_gradient_norm"):
        del values["fine_tuning"][name]
    values["fine_tuning"]["warmup_iterations"] = round(
        values["fine_tuning"].pop("warmup_fraction") * values["fine_tuning"]["iterations"]
    )
    return json.loads(json.dumps({**values, "sam": sam}))


def test_a_plan_of_version_0_1_keeps_its_rank() -> None:
    before = of_version_0_1({"model": "vit_b", "checkpoint": None, "adaptation": "lora", "lora_rank": 7})
    read = SFRConfiguration.from_dict(before)
    assert read.sam.adaptation_settings == {"rank": 7}
    assert read.sam.strategy.rank == 7
    assert read.stitching.scale == (1.0, 1.0, 1.0)
    assert before["sam"]["lora_rank"] == 7, "what was read is left as it is"
    again = SFRConfiguration.from_dict(json.loads(json.dumps(read.to_dict())))
    assert again == read


@pytest.mark.parametrize(("warmup", "iterations"), [(250, 6000), (20, 400), (7, 13), (0, 1)])
def test_a_plan_of_version_0_1_keeps_its_warm_up(warmup: int, iterations: int) -> None:
    before = configuration().to_dict()
    del before["fine_tuning"]["warmup_fraction"]
    before["fine_tuning"].update(warmup_iterations=warmup, iterations=iterations)
    read = SFRConfiguration.from_dict(json.loads(json.dumps(before)))
    assert read.fine_tuning.warmup_iterations == warmup
    assert "warmup_iterations" not in read.to_dict()["fine_tuning"]
    before["fine_tuning"]["iterations"] = warmup
    with pytest.raises(ValueError, match=rf"warmup_iterations \({warmup}\) must be fewer .* \({warmup}\); lower both"):
        SFRConfiguration.from_dict(before)


def test_the_rank_of_a_plan_of_version_0_1_that_had_no_lora_is_dropped() -> None:
    before = of_version_0_1({"model": "vit_tiny", "checkpoint": None, "adaptation": "full", "lora_rank": 4})
    read = SFRConfiguration.from_dict(before)
    assert (read.sam.model, read.sam.adaptation, read.sam.adaptation_settings) == ("vit_tiny", "full", {})
    assert "lora_rank" not in read.to_dict()["sam"]


def test_a_rank_that_was_never_right_is_refused() -> None:
    before = of_version_0_1({"model": "vit_b", "checkpoint": None, "adaptation": "lora", "lora_rank": 0})
    with pytest.raises(ValueError, match="sam: adaptation_settings of lora: rank must be at least 1, got 0"):
        SFRConfiguration.from_dict(before)


def test_settings_of_an_adaptation_that_are_not_named_are_written_out() -> None:
    assert SAMSettings(model="vit_b", adaptation="lora").adaptation_settings == {"rank": 4}
    assert SAMSettings(model="vit_b", adaptation="lora", adaptation_settings={"rank": 9}).strategy.rank == 9


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
    with pytest.raises(UserError, match="expected an object, got a list"):
        load(file)


@pytest.mark.parametrize("section", [SAMSettings, FineTuningSettings, PseudoLabelSettings, RetrainingSettings])
def test_defaults_pass_their_own_checks(section: type) -> None:
    assert section_from_dict(section, {}) == section()


def test_what_a_plan_was_derived_from_has_json_types() -> None:
    values = derived_from(NNUNET_PLANS, NNUNET_CONFIGURATION)
    assert set(values) == {*DERIVED_FROM_KEYS, "transpose_forward"}
    assert values["spacing"] == [2.5, 2.5, 2.5]
    assert values["transpose_forward"] == [0, 1, 2]


def test_settings_of_methods_are_read_from_where_earlier_versions_had_them(tmp_path: Path) -> None:
    old = {
        "acmt_threshold_start": 0.1,
        "acmt_threshold_rise": 0.3,
        "magicnet_cubes_per_axis": 2,
        "magicnet_position_weight": 0.5,
        "magicnet_blending_start": 7,
        "magicnet_statistics_window": 8,
        "magicnet_class_temperature": 9.0,
        "ict_alpha": 0.2,
        "relabel_at": [0.5],
    }
    file = save(tmp_path / "plan.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"]["retraining"] = old
    file.write_text(json.dumps(content))
    read = load(file).retraining
    assert read == RetrainingSettings(
        acmt=ACMTSettings(threshold_start=0.1, threshold_rise=0.3),
        magicnet=MagicNetSettings(
            cubes_per_axis=2, position_weight=0.5, blending_start=7, statistics_window=8, class_temperature=9.0
        ),
        ict=ICTSettings(alpha=0.2),
        st=STSettings(relabel_at=(0.5,)),
    )
