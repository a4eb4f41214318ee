"""With torch.compile, as on a GPU: nnU-Net wraps the network, which teacher, checkpoints and cubes must see through.

Dynamo traces the network as it would there and hands it to the backend "eager", which computes what it was given: the
results must be those of the network without torch.compile.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo import OptimizedModule

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.trainers import find_trainer
from nnunet_sfr.trainers.methods import METHODS
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import weights
from tests.tiny_project import change_settings
from tests.trainers.later_rounds import finish_the_round_before

# UA-MT's dropout draws other numbers in a compiled training
COMPARABLE = [f"nnUNetTrainerSFR_{method}" for method in METHODS if method != "UAMT"]


@pytest.mark.parametrize("name", [*COMPARABLE, "nnUNetTrainerSFRPlus_MT"])
def test_a_compiled_training_is_the_same_training(
    name: str, make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    finish_the_round_before(project, name)
    plain = make_trainer(name)
    plain.run_training()

    trainer_class: Any = find_trainer(name)
    monkeypatch.setattr(trainer_class, "_do_i_compile", lambda trainer: True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled = make_trainer(name)
    compiled.run_training()

    assert isinstance(compiled.network, OptimizedModule)
    assert not isinstance(compiled.student, OptimizedModule)
    torch.testing.assert_close(weights(compiled.student), weights(plain.student), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights(compiled.teacher), weights(plain.teacher), rtol=1e-4, atol=1e-6)
    checkpoint = torch.load(Path(compiled.output_folder, "checkpoint_final.pth"), weights_only=False)
    assert set(checkpoint["network_weights"]) == set(plain.student.state_dict())
