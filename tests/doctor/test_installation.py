"""Packages that are missing, too old or broken are named, and sound ones pass."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from nnunet_sfr.doctor import installation
from nnunet_sfr.doctor.installation import check_imports, check_packages, compare_packages, compare_python
from tests.doctor.levels import levels, only

DECLARED = ["torch", "nnunetv2<3,>=2.8", 'scipy; extra == "dev"', 'colorama; sys_platform == "never"']


def version_of(**installed: str) -> object:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    return version


def test_requirements_that_are_met() -> None:
    (finding,) = compare_packages(DECLARED, version_of(torch="2.9.0", nnunetv2="2.8.1"))  # type: ignore[arg-type]
    assert finding.level.value == "ok"
    assert "all 2 " in finding.text, "what only an extra or another system needs is not asked for"


def test_a_missing_package_and_one_that_is_too_old() -> None:
    missing, old = compare_packages(DECLARED, version_of(nnunetv2="2.5.2"))  # type: ignore[arg-type]
    assert levels([missing, old]) == ["problem", "problem"]
    assert (missing.text, missing.remedy) == ("torch is missing", "pip install 'torch'")
    assert old.text == "nnunetv2 2.5.2 where <3,>=2.8 is declared"
    assert old.remedy == "pip install 'nnunetv2<3,>=2.8'"


def test_a_build_of_torch_with_a_local_version_is_no_other_version() -> None:
    (finding,) = compare_packages(["torch>=2.4"], version_of(torch="2.9.0+cu128"))  # type: ignore[arg-type]
    assert finding.level.value == "ok"


def test_python_versions() -> None:
    assert compare_python(">=3.10", "3.11.7") == []
    assert only(compare_python(">=3.10", "3.9.2"), "problem").text == "3.9.2 where >=3.10 is declared"


def test_this_environment_is_sound_and_every_version_is_shown() -> None:
    findings = check_packages()
    assert "problem" not in levels(findings)
    for name in installation.SHOWN_PACKAGES:
        assert f"{name} {metadata.version(name)}" in findings[0].text


def test_an_installation_of_another_version_than_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "__version__", "0.0.7")
    assert "nnunet_sfr 0.0.7 runs, but" in only(check_packages(), "note").text


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", version_of())
    finding = only(check_packages(), "note")
    assert finding.text.startswith("not installed, taken from ")
    assert Path(finding.text.rpartition(" ")[2], "environment.py").is_file()


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "built_for_another_torch.py").write_text("raise RuntimeError('operator nms\\n does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installation, "IMPORTED", ("json", "built_for_another_torch"))
    finding = only(check_imports(), "problem")
    assert finding.text == ("built_for_another_torch cannot be imported (RuntimeError: operator nms does not exist)")
