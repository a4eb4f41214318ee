"""The packages that are installed, against those that this one declares."""

from __future__ import annotations

import importlib
import platform
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nnunet_sfr import __version__
from nnunet_sfr.doctor.findings import Finding, note, ok, problem
from nnunet_sfr.wording import reason

PACKAGE = "nnunet_sfr"

SHOWN_PACKAGES = (
    "nnunetv2",
    "torch",
    "torchvision",
    "segment-anything",
    "peft",
    "accelerate",
    "batchgenerators",
    "batchgeneratorsv2",
    "acvl-utils",
    "blosc2",
    "SimpleITK",
)
"""Whose versions the report has; nnU-Net brings SimpleITK."""

IMPORTED = (
    "torch",
    "torchvision",
    "segment_anything",
    "peft",
    "accelerate",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
)
"""Modules that can be installed and yet fail, where one was built for another version of the next."""


def check_packages() -> list[Finding]:
    """Versions, and every requirement that is not met."""
    try:
        installed, requirements = metadata.version(PACKAGE), metadata.requires(PACKAGE) or []
        python_versions = str(metadata.metadata(PACKAGE).json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        folder = Path(importlib.import_module(PACKAGE).__path__[0])
        return [note("nnunet_sfr", f"not installed, taken from {folder}", "run pip install . in its repository")]
    findings = [ok("versions", _versions())] if installed == __version__ else [_stale(installed)]
    findings += compare_python(python_versions, platform.python_version())
    return findings + compare_packages(requirements, metadata.version)


def check_imports() -> list[Finding]:
    """Whether the packages that hang together can be imported."""
    findings = []
    for name in IMPORTED:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # packages that warn of each other are not the user's concern
                importlib.import_module(name)
        except Exception as error:  # whatever a broken package raises
            remedy = f"install {name.partition('.')[0]} again, in a version that fits the others"
            findings.append(
                problem("packages", f"{name} cannot be imported ({type(error).__name__}: {reason(error)})", remedy)
            )
    return findings


def compare_packages(requirements: Sequence[str], version: Callable[[str], str]) -> list[Finding]:
    """Requirements (of the package itself, not of its extras) against what is installed.

    Args:
        requirements: as the metadata of a package lists them.
        version: from the name of a package to its version; raises ``PackageNotFoundError``.
    """
    findings = []
    wanted = [Requirement(text) for text in requirements]
    wanted = [requirement for requirement in wanted if requirement.marker is None or requirement.marker.evaluate()]
    for requirement in wanted:
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = version(requirement.name)
        except metadata.PackageNotFoundError:
            findings.append(problem("packages", f"{requirement.name} is missing", remedy))
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            text = f"{requirement.name} {found} where {requirement.specifier} is declared"
            findings.append(problem("packages", text, remedy))
    if not findings:
        findings.append(ok("packages", f"all {len(wanted)} that {PACKAGE} declares are there, in versions that fit"))
    return findings


def compare_python(declared: str, version: str) -> list[Finding]:
    """The Python that runs, against the versions that are declared.

    Args:
        declared: as ``requires-python``.
        version: of this Python.
    """
    if SpecifierSet(declared).contains(version, prereleases=True):
        return []
    return [problem("Python", f"{version} where {declared} is declared", "make an environment with another Python")]


def _stale(installed: str) -> Finding:
    text = f"{PACKAGE} {__version__} runs, but {installed} is what is installed; {_versions()}"
    return note("versions", text, "run pip install . in its repository again")


def _versions() -> str:
    versions = [f"Python {platform.python_version()}", f"{PACKAGE} {__version__}"]
    for name in SHOWN_PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} missing")
    return ", ".join(versions)
