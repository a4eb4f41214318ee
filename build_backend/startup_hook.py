"""The PEP 517 build backend: setuptools, and one ``.pth`` file in every wheel, editable wheels too.

setuptools has no setting that puts a file beside the package in site-packages. The ``.pth`` file there is what tells
nnU-Net of our trainers in every Python process (see ``nnunet_sfr/environment.py``); being listed in the wheel's
``RECORD``, it goes when the package is uninstalled.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

HOOK = Path(__file__).with_name("nnunet_sfr.pth")

Config = dict[str, Any] | None


def build_wheel(wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None) -> str:
    """PEP 517: build a wheel and return its file name."""
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    add_to_wheel(Path(wheel_directory, name), HOOK)
    return name


def build_editable(wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None) -> str:
    """PEP 660: build a wheel that points to this checkout and return its file name.

    The wheel is a plain path to the checkout (setuptools' ``compat`` mode) and no import hook, whose start would cost
    more than everything else we do there; ``nnunet_sfr/__init__.py`` finds ``entry_points/`` by itself.
    """
    settings = {"editable_mode": "compat", **(config_settings or {})}
    name: str = build_meta.build_editable(wheel_directory, settings, metadata_directory)
    add_to_wheel(Path(wheel_directory, name), HOOK)
    return name


def add_to_wheel(wheel: Path, file: Path) -> None:
    """Add one file to the root of a wheel, and its line to ``RECORD``.

    A zip file cannot change a member in place, so the wheel is copied; ``RECORD`` goes last, as the format advises.
    """
    content = file.read_bytes()
    changed = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as target:
        record = next(item for item in source.infolist() if item.filename.endswith(".dist-info/RECORD"))
        for item in source.infolist():
            if item is not record:
                target.writestr(item, source.read(item))
        # The date of another member, so that a build that sets SOURCE_DATE_EPOCH stays reproducible.
        added = zipfile.ZipInfo(file.name, date_time=record.date_time)
        added.external_attr = record.external_attr
        target.writestr(added, content, zipfile.ZIP_DEFLATED)
        target.writestr(record, source.read(record) + _record_line(file.name, content))
    os.replace(changed, wheel)


def _record_line(name: str, content: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n".encode()
