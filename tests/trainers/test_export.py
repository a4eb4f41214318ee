"""Exported models: nnU-Net alone loads them, and predicts what the trained network predicts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.entry_points.export import main
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import TEACHER_CHECKPOINT
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY
from nnunet_sfr.trainers.export import export_model
from tests.tiny_project import PLANS, build_trainer, project_copy

CHECKPOINT = "checkpoint_final.pth"
TRAINER = "nnUNetTrainerSFR_MT"

WITHOUT_US = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nnunet_sfr", "nnunet_sfr_trainers"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocked())
for name in [name for name in sys.modules if name.startswith("nnunet_sfr")]:
    del sys.modules[name]
import os, torch
os.environ.pop("nnUNet_extTrainer", None)
torch.set_num_threads(1)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
if __name__ == "__main__":
    model, image, output = sys.argv[1:]
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, ("all",), "checkpoint_final.pth")
    predictor.predict_from_files_sequential([[image]], [output])
    assert not any(name.startswith("nnunet_sfr") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def trained_root(planned_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with a trained model: student and teacher differ."""
    root = tmp_path_factory.mktemp("trained")
    with project_copy(planned_root, root) as dataset:
        build_trainer(dataset, TRAINER).run_training()
    return root


@pytest.fixture
def project(trained_root: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    """A copy of that project, which a test may change."""
    with project_copy(trained_root, tmp_path) as dataset:
        yield dataset


@pytest.fixture
def model_folder(project: SFRDataset) -> Path:
    """Of the trained model."""
    return Path(build_trainer(project, TRAINER).output_folder_base)


def predict(model: Path, checkpoint: str, image: Path, output: Path) -> Any:
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), ("all",), checkpoint)
    predictor.predict_from_files_sequential([[str(image)]], [str(output)])
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(f"{output}.nii.gz"))


def test_nnunet_alone_predicts_the_same_voxels(model_folder: Path, project: SFRDataset, tmp_path: Path) -> None:
    image = next((project.paths.raw / "imagesTs").glob("*.nii.gz"))
    expected = predict(model_folder, CHECKPOINT, image, tmp_path / "ours")
    assert 0 < expected.mean() < 1, "an empty prediction would prove nothing"
    export_model(model_folder, ["all"], tmp_path / "exported", checkpoint=CHECKPOINT)
    command = [sys.executable, "-c", WITHOUT_US, str(tmp_path / "exported"), str(image), str(tmp_path / "theirs")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "theirs.nii.gz")))
    assert (theirs == expected).all()


def test_the_exported_checkpoint_names_the_stock_trainer(model_folder: Path, tmp_path: Path) -> None:
    export_model(model_folder, ["all"], tmp_path / "student", checkpoint=CHECKPOINT)
    export_model(model_folder, ["all"], tmp_path / "teacher", checkpoint=CHECKPOINT, use_teacher=True)
    original = torch.load(model_folder / "fold_all" / CHECKPOINT, weights_only=False)
    student = torch.load(tmp_path / "student" / "fold_all" / CHECKPOINT, weights_only=False)
    teacher = torch.load(tmp_path / "teacher" / "fold_all" / CHECKPOINT, weights_only=False)
    assert student["trainer_name"] == teacher["trainer_name"] == "nnUNetTrainer"
    differs = False
    for name, value in original["network_weights"].items():
        assert torch.equal(student["network_weights"][name], value)
        assert torch.equal(teacher["network_weights"][name], original[CHECKPOINT_KEY]["teacher_weights"][name])
        differs = differs or not torch.equal(value, teacher["network_weights"][name])
    assert differs, "student and teacher must differ for this test to mean anything"
    assert "optimizer_state" not in student


def test_a_zip_holds_the_folder_that_nnunet_installs(model_folder: Path, tmp_path: Path) -> None:
    export_model(model_folder, ["all"], tmp_path / "model.zip", checkpoint=CHECKPOINT)
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        names = set(archive.namelist())
    prefix = "Dataset042_Tiny/nnUNetTrainerSFR_MT__nnUNetPlansCPU__3d_fullres"
    assert names == {
        f"{prefix}/fold_all/checkpoint_final.pth",
        f"{prefix}/plans.json",
        f"{prefix}/dataset.json",
        f"{prefix}/dataset_fingerprint.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir() if "model" in path.name) == ["model.zip"]


def change_dataset_json(model_folder: Path, **changes: Any) -> None:
    """In the model's folder, and in its checkpoint, as a training leaves them."""
    file = model_folder / "dataset.json"
    content = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    file.write_text(json.dumps(content))
    checkpoint = torch.load(model_folder / "fold_all" / CHECKPOINT, weights_only=False)
    checkpoint["init_args"]["dataset_json"] = content
    torch.save(checkpoint, model_folder / "fold_all" / CHECKPOINT)


def test_no_file_names_a_case_unless_that_is_asked_for(model_folder: Path, tmp_path: Path) -> None:
    entry = {"images": ["/data/secret_1.nii.gz"], "label": "/data/secret_1.nii.gz"}
    convert = {"dataset": "BTCV", "labelled": ["secret_1"]}
    added = {
        "licence": "CC BY 4.0",
        "dataset": {"secret_1": entry},
        "sfr_convert": convert,
        "test": ["./secret_2.nii.gz"],
    }
    before = json.loads((model_folder / "dataset.json").read_text(encoding="utf-8"))
    change_dataset_json(model_folder, **added)
    expected = {
        False: {**before, "licence": "CC BY 4.0", "sfr_convert": {"dataset": "BTCV"}},
        True: {**before, **added},
    }
    for with_names, content in expected.items():
        output = tmp_path / f"exported_{with_names}"
        export_model(model_folder, ["all"], output, checkpoint=CHECKPOINT, with_case_names=with_names)
        assert json.loads((output / "dataset.json").read_text(encoding="utf-8")) == content
        checkpoint = torch.load(output / "fold_all" / CHECKPOINT, weights_only=False)
        assert checkpoint["init_args"]["dataset_json"] == content
        inside = b"".join(file.read_bytes() for file in output.rglob("*") if file.is_file())
        assert (b"secret" in inside) == with_names


@pytest.mark.parametrize("options", [[], ["--case-names"]])
def test_the_command_describes_the_checkpoint_that_it_exports(
    options: list[str], model_folder: Path, tmp_path: Path
) -> None:
    change_dataset_json(model_folder, dataset={"secret": {"images": [], "label": ""}})
    output = tmp_path / "exported"
    assert main(["-d", "42", "-p", PLANS, "-tr", TRAINER, "-chk", TEACHER_CHECKPOINT, "-o", str(output), *options]) == 0
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "| weights | teacher |" in card
    assert ("train_00" in card) == bool(options)
    assert ("dataset" in json.loads((output / "dataset.json").read_text(encoding="utf-8"))) == bool(options)


def test_what_a_killed_export_left_goes_with_the_next(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it zipped, it leaves a folder and a part of the file."""
    monkeypatch.setattr("nnunet_sfr.atomic.process_exists", lambda process: process == os.getpid())
    left = tmp_path / f".{socket.gethostname()}-1.model"
    (left / "fold_all").mkdir(parents=True)
    left.with_name(f"{left.name}.zip").touch()
    export_model(model_folder, ["all"], tmp_path / "model.zip", checkpoint=CHECKPOINT)
    assert sorted(path.name for path in tmp_path.iterdir() if "model" in path.name) == ["model.zip"]


def test_user_mistakes_are_one_line_and_leave_nothing(model_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with pytest.raises(UserError, match=r"fold_0/checkpoint_final\.pth: not found; train this fold first"):
        export_model(model_folder, [0], output, checkpoint=CHECKPOINT)
    with pytest.raises(UserError, match="holds no teacher"):
        export_model(model_folder, ["all"], output, checkpoint="checkpoint_teacher.pth", use_teacher=True)
    (model_folder / "fold_all" / "broken.pth").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match=r"broken\.pth: cannot be read"):
        export_model(model_folder, ["all"], output, checkpoint="broken.pth")
    assert not output.exists()
    output.mkdir()
    with pytest.raises(UserError, match="exists already; choose another -o or remove it"):
        export_model(model_folder, ["all"], output, checkpoint=CHECKPOINT)
