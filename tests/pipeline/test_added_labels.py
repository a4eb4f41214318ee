"""sfr_run after sfr_add_labels: the plan stays, and what learnt from the labelled cases is done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_sfr.corrections import add_labels as corrections
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.pipeline.status import status_text
from tests.pipeline.fake_commands import FakeCommands, go, run_options
from tests.tiny_dataset import NAME, write_image

TRAIN = "nnUNetv2_train"
AGAIN = ["sfr_finetune --overwrite", "sfr_pseudolabel --overwrite", TRAIN]


def label_one(root: Path) -> None:
    """Bring back a label for one of the two unlabelled cases."""
    write_image(root / "corrected" / "unlabelled_00.nii.gz", np.ones((18, 22, 20), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corrections, "commands_to_repeat", lambda _: [])  # the fake stores do not say who filled them
        corrections.add_labels(NAME, root / "corrected", typed="sfr_add_labels -d 42 -i corrected")


def test_all_but_planning_is_done_again(planned: SFRDataset, tmp_path: Path) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    label_one(tmp_path)
    assert "next: fine-tune SAM" in status_text(fake.project.options)
    assert go(fake) == AGAIN
    assert go(fake) == []


@pytest.mark.parametrize(
    "options", [{}, {"target_spacing": (1.0, 1.0, 1.0)}, {"planner": "ExperimentPlannerCPU", "sam": "vit_tiny"}]
)
def test_the_options_of_planning_can_be_typed_again(
    planned: SFRDataset, tmp_path: Path, options: dict[str, Any]
) -> None:
    fake = FakeCommands(planned, run_options(**options))
    first = go(fake)
    assert (first[0] == "sfr_plan_and_preprocess") == ("target_spacing" in options), "the plan has this SAM"
    label_one(tmp_path)
    assert go(fake) == AGAIN
    other = FakeCommands(planned, run_options(target_spacing=(2.0, 2.0, 2.0)))
    assert go(other)[0] == "sfr_plan_and_preprocess", "what is asked for again is planned again"


def test_every_round_is_done_again(planned: SFRDataset, tmp_path: Path) -> None:
    fake = FakeCommands(planned, run_options(rounds=1))
    go(fake)
    label_one(tmp_path)
    assert go(fake) == [
        *AGAIN,
        "sfr_pseudolabel --round --overwrite",
        "sfr_select --round",
        "sfr_finetune --round --overwrite",
        "sfr_pseudolabel --round --overwrite",
        TRAIN,
    ]
    assert go(fake) == []


def test_a_run_that_has_not_begun_takes_the_plan_as_it_is(planned: SFRDataset, tmp_path: Path) -> None:
    label_one(tmp_path)
    assert go(FakeCommands(planned, run_options())) == ["sfr_finetune", "sfr_pseudolabel", TRAIN]


def test_a_later_image_is_planned_for(planned: SFRDataset, tmp_path: Path) -> None:
    """What sfr_add_labels has taken in is that label, and nothing that came after it."""
    fake = FakeCommands(planned, run_options())
    go(fake)
    label_one(tmp_path)
    new = planned.paths.raw_unlabelled / "unlabelled_07_0000.nii.gz"
    write_image(new, np.random.default_rng(0).normal(100, 10, (18, 22, 20)).astype(np.float32))
    assert go(fake)[0] == "sfr_plan_and_preprocess"


def test_nothing_runs_on_a_data_set_that_is_half_changed(
    planned: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeCommands(planned, run_options())

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corrections, "update_dataset_json", killed)
        with pytest.raises(KeyboardInterrupt):
            label_one(tmp_path)
    with pytest.raises(UserError, match="sfr_add_labels was stopped before its end; run it again to complete it"):
        go(fake)
    label_one(tmp_path)
    assert go(fake) == ["sfr_finetune", "sfr_pseudolabel", TRAIN]
