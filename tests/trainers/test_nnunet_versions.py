"""What differs between the versions of nnU-Net: an argument's name, and where pre-trained weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from torch import nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.trainers.pretrained_weights import adapt_weights, write_adapted_weights
from tests.project_fixtures import TrainerFactory


@pytest.mark.parametrize("argument", ["filename_or_checkpoint", "checkpoint"])
def test_a_checkpoint_is_loaded_under_either_name(argument: str, make_trainer: TrainerFactory, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.initialize()
    trainer.iteration = 17
    with torch.no_grad():
        for parameter in trainer.teacher.parameters():
            parameter.fill_(0.5)
    trainer.on_train_epoch_start = lambda: None
    file = str(tmp_path / "checkpoint.pth")
    trainer.save_checkpoint(file)
    resumed = make_trainer()
    resumed.load_checkpoint(**{argument: file})
    assert resumed.iteration == 17
    assert all(bool((parameter == 0.5).all()) for parameter in resumed.teacher.parameters())
    by_position = make_trainer()
    by_position.load_checkpoint(file)
    assert by_position.iteration == 17


def test_without_a_checkpoint_nothing_is_loaded(make_trainer: TrainerFactory) -> None:
    with pytest.raises(TypeError, match="needs a file or the content of a checkpoint"):
        make_trainer().load_checkpoint()


def nnssl_like(network: torch.nn.Module) -> dict[str, Any]:
    """A checkpoint as nnssl writes it: the same encoder and decoder, with a head that reconstructs one channel."""
    weights = {}
    for name, value in network.state_dict().items():
        # a weight has several names, for which it is the same
        generator = torch.Generator().manual_seed(value.data_ptr() % 2**31)
        shape = (1, *value.shape[1:]) if ".seg_layers." in name and value.ndim > 1 else value.shape
        weights[name] = torch.rand(shape, generator=generator)
    return {
        "network_weights": weights,
        "nnssl_adaptation_plan": {
            "architecture_plans": {"arch_class_name": "ResEncL"},
            "pretrain_num_input_channels": 1,
            "key_to_encoder": "encoder.stages",
            "key_to_stem": "encoder.stem",
            "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        },
        "citations": [],
        "current_epoch": 1000,
    }


def test_a_part_of_the_weights_is_enough(project: SFRDataset, make_trainer: TrainerFactory, tmp_path: Path) -> None:
    """An encoder alone, under the names that DDP gives it: nnU-Net refuses it, and takes the adapted file."""
    trainer = make_trainer()
    trainer.initialize()
    checkpoint = nnssl_like(trainer.student)
    encoder = {name: value for name, value in checkpoint["network_weights"].items() if name.startswith("encoder.")}
    torch.save(
        {**checkpoint, "network_weights": {f"module.{name}": one for name, one in encoder.items()}}, tmp_path / "a"
    )
    with pytest.raises(AssertionError, match="is missing in the pretrained model weights"):
        maybe_load_checkpoint(trainer, False, False, str(tmp_path / "a"))
    adapted = write_adapted_weights(project, tmp_path / "a", tmp_path / "start.pth")
    assert {name for name in adapted.taken if name.startswith("encoder.")} == set(encoder)
    assert all(name.startswith("decoder.") for name in adapted.kept)
    maybe_load_checkpoint(trainer, False, False, str(tmp_path / "start.pth"))
    for name, value in encoder.items():
        assert torch.equal(trainer.student.state_dict()[name], value), name


def test_one_input_channel_stands_for_several() -> None:
    several, one = (nn.Conv3d(channels, 4, 3) for channels in (3, 1))
    network, pretrained = (nn.ModuleDict({"encoder": convolution}) for convolution in (several, one))
    adapted = adapt_weights(network, pretrained.state_dict())
    assert adapted.repeated == ("encoder.weight",)
    network.load_state_dict(adapted.weights)
    image = torch.rand(1, 1, 5, 5, 5)
    torch.testing.assert_close(several(image.expand(-1, 3, -1, -1, -1)), one(image))


def test_another_architecture_is_refused(project: SFRDataset, tmp_path: Path) -> None:
    output = tmp_path / "start.pth"
    mistakes = {
        "eva.pth": ({"network_weights": {"eva.blocks.0.weight": torch.ones(3)}}, "0 of .* weights of the encoder fit"),
        "empty.pth": ({}, "holds no network_weights; is it a checkpoint of nnssl or nnU-Net"),
        "code.pth": ({"network_weights": {}, "x": Path("a")}, "cannot be read without running"),
    }
    for name, (content, said) in mistakes.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=rf"{name}: {said}"):
            write_adapted_weights(project, tmp_path / name, output)
    (tmp_path / "text.pth").write_text("no checkpoint")
    for name, said in (("text.pth", "cannot be read"), ("gone.pth", "not found; choose -i among your checkpoints")):
        with pytest.raises(UserError, match=said):
            write_adapted_weights(project, tmp_path / name, output)
    assert not output.exists()


def test_training_starts_from_nnssl_weights(make_trainer: TrainerFactory, tmp_path: Path) -> None:
    """As ``nnUNetv2_train -pretrained_weights`` does it, with student and teacher alike."""
    trainer = make_trainer()
    trainer.initialize()
    checkpoint = nnssl_like(trainer.student)
    torch.save(checkpoint, tmp_path / "openmind.pth")
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    maybe_load_checkpoint(trainer, False, False, str(tmp_path / "openmind.pth"))
    trainer.on_train_start()
    taken = 0
    for name, value in trainer.student.state_dict().items():
        is_head = ".seg_layers." in name
        expected = before[name] if is_head else checkpoint["network_weights"][name]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        torch.testing.assert_close(trainer.teacher.state_dict()[name], value, rtol=0, atol=0)
        taken += not is_head
    assert taken > 10
