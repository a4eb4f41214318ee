"""The three ways to install: every Python process of the environment knows the trainers, and uninstalling ends that."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("nnunet_sfr", "entry_points", "build_backend")
FILES = ("pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md")

PROBE = """
import json, os, sys
at_start = [name for name in ("torch", "numpy", "nnunetv2") if name in sys.modules]
import nnunet_sfr.entry_points
print(json.dumps([os.environ["nnUNet_extTrainer"], nnunet_sfr.__file__, nnunet_sfr.entry_points.__file__, at_start]))
"""

SPAWN = """
import multiprocessing, os

def variable():
    return os.environ["nnUNet_extTrainer"]

if __name__ == "__main__":
    del os.environ["nnUNet_extTrainer"]  # what a spawned process knows, it must have found by itself
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(variable))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    """Run a command without the variables that could lead it to another installation."""
    ours = ("nnUNet_extTrainer", "PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    assert "Error processing line" not in result.stderr
    return result.stdout.strip()


def _pip(python: Path, *arguments: str | Path) -> None:
    _run(sys.executable, "-m", "pip", "--python", python, "--quiet", *arguments, cwd=python.parent)


def test_the_source_distribution_has_every_file_of_the_tests() -> None:
    lines = (REPOSITORY / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    (patterns,) = (words[2:] for line in lines if (words := line.split())[:2] == ["recursive-include", "tests"])
    files = [file for file in (REPOSITORY / "tests").rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert [file.name for file in files if not any(file.match(pattern) for pattern in patterns)] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, so that no build leaves files in the working tree."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in SOURCES:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        if (REPOSITORY / file).is_file():
            shutil.copy(REPOSITORY / file, copy)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout: Path) -> dict[str, Path]:
    """What can be given to pip: a wheel from the checkout, a source distribution, the checkout itself (editable)."""
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", "dist", ".", cwd=checkout)
    (wheel,) = (checkout / "dist").glob("*.whl")
    (sdist,) = (checkout / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist, "editable": checkout}


@pytest.fixture
def environment_python(tmp_path: Path) -> Path:
    """The Python of a new virtual environment that sees the packages of this one, but runs none of its .pth files."""
    folder = tmp_path / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (packages,) = folder.rglob("site-packages")
    (packages / "parent.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def _record_digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _leftovers(python: Path) -> list[Path]:
    return [path for path in python.parent.parent.rglob("*") if "nnunet_sfr" in path.name]


@pytest.mark.parametrize("way", ["wheel", "sdist", "editable"])
def test_installation_and_uninstallation(
    way: str, distributions: dict[str, Path], environment_python: Path, tmp_path: Path
) -> None:
    python, root = environment_python, distributions["editable"] if way == "editable" else tmp_path / "venv"
    assert _run(python, "-c", "import os; print('nnUNet_extTrainer' in os.environ)", cwd=tmp_path) == "False"
    options = ["--editable"] if way == "editable" else []
    _pip(python, "install", "--no-deps", "--no-build-isolation", *options, distributions[way])

    variable, package, entry_points, imported = json.loads(_run(python, "-c", PROBE, cwd=tmp_path))
    assert variable == str(Path(package).parent / "nnunet_plugin")
    assert (Path(variable) / "nnunet_sfr_trainers.py").is_file()
    assert imported == []
    assert Path(package).is_relative_to(root)
    assert Path(entry_points).is_relative_to(root)
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    assert _run(python, script, cwd=tmp_path) == variable
    assert (python.parent / "sfr_finetune").with_suffix(python.suffix).is_file()

    assert _leftovers(python)
    _pip(python, "uninstall", "--yes", "nnunet_sfr")
    assert _leftovers(python) == []
    assert _run(python, "-c", "import os; print('nnUNet_extTrainer' in os.environ)", cwd=tmp_path) == "False"


def test_half_removed_package_leaves_python_starting_in_silence(
    distributions: dict[str, Path], environment_python: Path, tmp_path: Path
) -> None:
    python = environment_python
    _pip(python, "install", "--no-deps", distributions["wheel"])
    (environment,) = (tmp_path / "venv").rglob("nnunet_sfr/environment.py")
    for broken in ("def", "raise RuntimeError", None):
        if broken is None:
            shutil.rmtree(environment.parent)
        else:
            environment.write_text(broken)
        result = subprocess.run([python, "-c", ""], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_wheel_holds_every_module(distributions: dict[str, Path], checkout: Path) -> None:
    package = checkout / "nnunet_sfr"
    data = [*package.glob("report/assets/*"), *package.glob("conversion/lists/*.json")]
    data += [file for file in package.glob("review/assets/**/*") if file.is_file()]
    assert len(data) > 2
    expected = {str(file.relative_to(checkout)) for file in [*package.rglob("*.py"), *data]}
    expected |= {f"nnunet_sfr/{file.relative_to(checkout)}" for file in (checkout / "entry_points").rglob("*.py")}
    expected = {name.replace(os.sep, "/") for name in expected} | {"nnunet_sfr/py.typed", "nnunet_sfr.pth"}
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        assert wheel.testzip() is None
        names = wheel.namelist()
        (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
        rows = list(csv.reader(wheel.read(record).decode().splitlines()))
        # pip installs what RECORD does not list, but other installers refuse such a wheel.
        assert sorted(row[0] for row in rows) == sorted(names)
        for name, digest, size in rows:
            content = wheel.read(name)
            expected_row = (_record_digest(content), str(len(content))) if name != record else ("", "")
            assert (digest, size) == expected_row, name
    assert {name for name in names if ".dist-info/" not in name} == expected
