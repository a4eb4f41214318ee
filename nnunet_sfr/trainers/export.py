"""Trained models for machines that have nnU-Net and not this package."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_sfr.atomic import remove_leftovers, replacing, write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.nnunet_json import OWN_KEY
from nnunet_sfr.paths import DATASET_JSON, FINAL_CHECKPOINT, FINGERPRINT, PLANS_JSON, Fold, fold_name
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY
from nnunet_sfr.trainers.model_card import CARD_NAME as CARD

EXPORTED_CHECKPOINT = FINAL_CHECKPOINT
"""The name that nnU-Net's prediction looks for unless told otherwise."""

STOCK_TRAINER = "nnUNetTrainer"
MODEL_FILES = (PLANS_JSON, DATASET_JSON, FINGERPRINT)
CHECKPOINT_KEYS = ("init_args", "inference_allowed_mirroring_axes", "current_epoch")
"""What nnU-Net's prediction reads besides the weights and the trainer's name."""
DATASET_KEYS = ("channel_names", "modality", "labels", "regions_class_order")
"""Objects and lists in ``dataset.json`` that it reads."""


def export_model(
    model_folder: Path,
    folds: Sequence[Fold],
    output: Path,
    *,
    checkpoint: str,
    use_teacher: bool = False,
    with_case_names: bool = False,
    card: str | None = None,
) -> None:
    """Write a model that nnU-Net alone predicts with.

    The network is nnU-Net's, so the weights stay as they are; the checkpoint names the stock trainer, and what only
    training needs (optimiser, teacher) stays behind.

    Args:
        model_folder: ``nnUNet_results/<data set>/<trainer>__<plans>__<configuration>``.
        folds: to export, each ``fold_<fold>`` in the folder.
        output: a ``.zip`` for nnUNetv2_install_pretrained_model_from_zip, or a folder for
            nnUNetv2_predict_from_modelfolder; must not exist.
        checkpoint: file name of the checkpoint in each fold.
        use_teacher: export the teacher's weights instead of the student's.
        with_case_names: whether to leave in ``dataset.json`` what can name cases (:func:`without_case_names`).
        card: text of the model's card; None for none.

    Raises:
        UserError: the model or the checkpoint is missing, the teacher is, or ``output`` exists.
    """
    require_model(model_folder)
    if output.exists():
        raise UserError(f"{output}: exists already; choose another -o or remove it")
    sources = {fold: _checkpoint_file(model_folder, fold, checkpoint) for fold in folds}
    with replacing(output) as temporary:
        folder = temporary if output.suffix != ".zip" else temporary.with_suffix("")
        if folder != temporary:
            remove_leftovers(output.parent, output.stem)  # of exports that were killed while they zipped
        try:
            _write_model_folder(model_folder, sources, folder, use_teacher=use_teacher, with_case_names=with_case_names)
            if card is not None:
                (folder / CARD).write_text(card, encoding="utf-8")
            if output.suffix == ".zip":
                _zip(folder, temporary, prefix=Path(model_folder.parent.name, model_folder.name))
        finally:
            if folder != temporary:
                shutil.rmtree(folder, ignore_errors=True)


def require_model(model_folder: Path) -> None:
    """Refuse a model that there is not, naming those that there are.

    Args:
        model_folder: ``nnUNet_results/<data set>/<trainer>__<plans>__<configuration>``.

    Raises:
        UserError: there is no such folder.
    """
    if not model_folder.is_dir():
        there = sorted(
            folder.name for folder in model_folder.parent.glob("*__*__*") if not folder.name.startswith("SFR_")
        )
        raise UserError(f"{model_folder}: no such model; choose with -tr, -p and -c among {', '.join(there) or 'none'}")


def _checkpoint_file(model_folder: Path, fold: Fold, checkpoint: str) -> Path:
    file = model_folder / fold_name(fold) / checkpoint
    if not file.is_file():
        raise UserError(f"{file}: not found; train this fold first, or choose -f and -chk among what is there")
    return file


def without_case_names(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """``dataset.json`` without what can name cases and files of this machine.

    Lists and objects that nnU-Net's prediction does not read go (``dataset``, and in files that are older ``training``
    and ``test``); of what sfr_convert noted, the list of labelled cases.

    Args:
        dataset_json: its content.
    """
    kept = {key: value for key, value in dataset_json.items() if key in DATASET_KEYS or _is_single(value)}
    origin = dataset_json.get("sfr_convert")
    if isinstance(origin, Mapping):
        kept["sfr_convert"] = {key: value for key, value in origin.items() if _is_single(value)}
    return kept


def _is_single(value: object) -> bool:
    return not isinstance(value, (list, tuple, Mapping))


def _write_model_folder(
    model_folder: Path, sources: dict[Fold, Path], folder: Path, *, use_teacher: bool, with_case_names: bool
) -> None:
    for fold, source in sources.items():
        target = folder / fold_name(fold)
        target.mkdir(parents=True)
        checkpoint = _stock_checkpoint(source, use_teacher=use_teacher, with_case_names=with_case_names)
        torch.save(checkpoint, target / EXPORTED_CHECKPOINT)
    for name in MODEL_FILES:
        if not (model_folder / name).is_file():
            raise UserError(f"{model_folder / name}: not found; the model cannot be used without it")
    shutil.copyfile(model_folder / PLANS_JSON, folder / PLANS_JSON)
    remedy = "train this model again"
    dataset_json = read_json(model_folder / DATASET_JSON, remedy)
    write_json(dataset_json if with_case_names else without_case_names(dataset_json), folder / DATASET_JSON)
    # ours may name cases that were labelled later
    fingerprint = read_json(model_folder / FINGERPRINT, remedy)
    write_json({key: value for key, value in fingerprint.items() if key != OWN_KEY}, folder / FINGERPRINT)


def _stock_checkpoint(file: Path, *, use_teacher: bool, with_case_names: bool) -> dict[str, object]:
    try:
        # nnU-Net's checkpoints hold NumPy scalars, which weights_only refuses; these are the user's own files
        content = torch.load(file, map_location="cpu", weights_only=False)
        weights = content["network_weights"]
        if use_teacher:
            weights = content[CHECKPOINT_KEY]["teacher_weights"]
    except KeyError:
        raise UserError(f"{file}: holds no {'teacher' if use_teacher else 'network weights'}") from None
    except Exception as error:
        raise UserError(f"{file}: cannot be read ({error}); is it a checkpoint of nnU-Net?") from None
    kept = {key: content.get(key) for key in CHECKPOINT_KEYS}
    arguments = kept["init_args"]
    if not with_case_names and arguments and "dataset_json" in arguments:
        kept["init_args"] = {**arguments, "dataset_json": without_case_names(arguments["dataset_json"])}
    return {"network_weights": weights, "trainer_name": STOCK_TRAINER, **kept}


def _zip(folder: Path, file: Path, prefix: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in sorted(folder.rglob("*")):
            if member.is_file():
                archive.write(member, prefix / member.relative_to(folder))
