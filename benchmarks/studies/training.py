"""Train one network and predict the test cases, in a process of its own: ``python -m benchmarks.studies.training``.

The trainers are the real ones, nnU-Net's own with as many iterations as ours and with a seed. The process reports its
time and peak memory in a JSON file.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks.report import circumstances
from benchmarks.studies.study import FOLD, STOCK
from benchmarks.workspace import CONFIGURATION
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.devices import resolve_device
from nnunet_sfr.json_files import read_json
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.trainers import find_trainer


def stock_trainer(epochs: int, seed: int, iterations: int, validation_iterations: int) -> type[nnUNetTrainer]:
    """nnU-Net's trainer with a schedule and a seed; everything else, the name too, stays."""

    class Scheduled(nnUNetTrainer):
        def initialize(self) -> None:
            self.num_epochs = epochs
            self.num_iterations_per_epoch = iterations
            self.num_val_iterations_per_epoch = validation_iterations
            self.save_every = 1
            seed_everything(seed)
            super().initialize()

    Scheduled.__name__ = STOCK
    return Scheduled


def main() -> None:
    """Train (or continue), report, predict; what an earlier call has finished stays."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    dataset = open_dataset(options.dataset, CONFIGURATION, options.plans)
    if not options.record.is_file():
        write_json(train(_trainer_class(options), dataset, device), options.record)
    if options.predictions is not None and not options.predictions.is_dir():
        model = Path(read_json(options.record, "delete it to train again")["model"])
        predict(model, options.images, options.predictions, device)


def _trainer_class(options: argparse.Namespace) -> Any:
    """Ours, whose schedule stands in the SFR plan, or nnU-Net's own with the same schedule."""
    return find_trainer(options.trainer) or stock_trainer(
        options.epochs, options.seed, options.iterations_per_epoch, options.validation_iterations_per_epoch
    )


def train(trainer_class: Any, dataset: SFRDataset, device: torch.device) -> dict[str, Any]:
    """Train to the end, from the last checkpoint if there is one.

    Returns:
        ``model`` (folder), ``seconds`` of this call's training, ``median_step_seconds``, ``peak_memory_bytes``
        (resident on the CPU, allocated by torch on CUDA), ``resumed``, and machine, software, commit and day.
    """
    plans = {**json.loads(dataset.paths.plans_file.read_text(encoding="utf-8")), "continue_training": False}
    trainer = trainer_class(plans, CONFIGURATION, FOLD, dict(dataset.dataset_json), device)
    checkpoint = Path(trainer.output_folder, "checkpoint_latest.pth")
    resumed = checkpoint.is_file()
    if resumed:
        trainer.initialize()
        trainer.load_checkpoint(str(checkpoint))
    steps = _timed_steps(trainer)
    start = time.perf_counter()
    trainer.run_training()
    seconds = time.perf_counter() - start
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "model": trainer.output_folder_base,
        "seconds": seconds,
        "median_step_seconds": float(np.median(steps)),
        "peak_memory_bytes": peak_memory(device),
        "resumed": resumed,
        **circumstances(name, torch.get_num_threads()),
    }


def _timed_steps(trainer: Any) -> list[float]:
    seconds: list[float] = []
    step = trainer.train_step

    def timed(batch: Any) -> Any:
        start = time.perf_counter()
        result = step(batch)
        seconds.append(time.perf_counter() - start)
        return result

    trainer.train_step = timed
    return seconds


def peak_memory(device: torch.device) -> int:
    """Bytes: of the process on the CPU, of torch's tensors on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def predict(model: Path, images: Path, predictions: Path, device: torch.device) -> None:
    """Predict a folder as ``nnUNetv2_predict`` does, with mirroring, in this process; all of it or nothing."""
    predictor = nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (FOLD,), "checkpoint_final.pth")
    with replacing(predictions) as temporary:
        temporary.mkdir()
        predictor.predict_from_files_sequential(str(images), str(temporary), overwrite=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.studies.training", description=__doc__)
    parser.add_argument("trainer", help="its name, with rounds and epochs")
    parser.add_argument("record", type=Path, help="JSON file to write")
    parser.add_argument("--dataset", required=True, help="number of the data set")
    parser.add_argument("--plans", required=True, help="plans identifier")
    own = parser.add_argument_group("of nnU-Net's own trainer; ours have them in the name and in the SFR plan")
    for name in ("epochs", "seed", "iterations-per-epoch", "validation-iterations-per-epoch"):
        own.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder with the test cases")
    parser.add_argument("--device", required=True, help="cpu or cuda")
    parser.add_argument("--threads", type=int, required=True, help="of torch")
    parser.add_argument(
        "--predictions", type=Path, help="folder for the predicted test cases; none are predicted without"
    )
    return parser


if __name__ == "__main__":
    main()
