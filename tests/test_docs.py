"""The documentation says what the code does."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from docs import settings_page
from nnunet_sfr.planner_names import CPU_PLANNER
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS, SAMModel
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS
from nnunet_sfr.trainers.methods import METHODS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def quoted_code(page: Path) -> list[tuple[str, str]]:
    """(file, code) of every Python block that a comment above it says to be from a file of this repository."""
    return re.findall(r"<!-- from (\S+) -->\n```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def without_blank_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_settings_page_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.render(), "run python docs/settings_page.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_code_is_the_code(page: Path) -> None:
    for source, code in quoted_code(page):
        assert code in (REPOSITORY / source).read_text(encoding="utf-8"), (
            f"{page.name} quotes {source}, which says something else"
        )


def test_every_block_of_the_worked_example_is_checked_and_its_file_is_shown_in_full() -> None:
    page = REPOSITORY / "docs" / "add-a-method.md"
    quotes = quoted_code(page)
    # the one block that is no quotation is run by tests/trainers/test_interpolation_consistency.py
    assert page.read_text(encoding="utf-8").count("```python\n") == len(quotes) + page.read_text(
        encoding="utf-8"
    ).count("<!-- outside the package -->")
    method = "nnunet_sfr/trainers/interpolation_consistency.py"
    shown = "".join(code for source, code in quotes if source == method)
    assert without_blank_lines(shown) == without_blank_lines((REPOSITORY / method).read_text(encoding="utf-8"))


def test_every_page_has_its_place_on_the_site() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = re.findall(r"- ([\w-]+\.md)$", navigation, flags=re.MULTILINE)
    assert len(named) == len(set(named))
    # the others are made by docs/site_hooks.py
    written = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    assert set(named) == written | {"index.md", "benchmarks.md", "changelog.md", "commands.md", "contributing.md"}


def table_rows(page: str, first_header: str) -> dict[str, list[str]]:
    """The other cells of each row of a table, by the first name in backquotes of its first cell."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    [table] = re.findall(rf"^\| {first_header} \|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", text, flags=re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.splitlines()]
    return {first.split("`")[1]: cells for first, *cells in rows}


def canvases(model: SAMModel) -> str:
    """As docs/method.md writes them."""
    sizes = model.canvas.sizes
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}, {sizes[1]}, …, {sizes[-1]}"


def test_the_table_of_models_is_that_of_the_code() -> None:
    rows = table_rows("method.md", "Model")
    assert list(rows) == list(MODELS)
    intensities = {"zero_to_one": "0 to 1", "as_preprocessed": "as preprocessed"}
    for name, (_, *cells) in rows.items():
        model = MODELS[name]
        adaptation = f"`{model.adaptation}`"
        if model.adaptation_on_gpu is not None:
            adaptation = f"`{model.adaptation_on_gpu}`, with `{CPU_PLANNER}` {adaptation}"
        expected = [str(model.stride), canvases(model), intensities[model.intensities], adaptation]
        assert cells == expected, name
    assert f"| `{DEFAULT_MODEL}` (default) |" in (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_explained(method: str) -> None:
    assert f"| `nnUNetTrainerSFR_{method}` | `nnUNetTrainer_{method}` | " in (REPOSITORY / "README.md").read_text(
        encoding="utf-8"
    )
    assert re.search(
        rf"^\*\*.+\*\* \(`{method}`\)", (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8"), re.MULTILINE
    )


def test_every_adaptation_is_explained() -> None:
    assert list(table_rows("method.md", "Adaptation")) == list(ADAPTATIONS)


def test_the_page_of_licences_names_all_weights_and_packages() -> None:
    rows = table_rows("licences.md", "Model")
    assert list(rows) == list(MODELS)
    for name, (file, _, licence) in rows.items():
        weights = MODELS[name].weights
        assert (file, licence) == (
            ("none: trained from scratch", "") if weights is None else (f"`{weights.file}`", weights.licence)
        )
    text = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    default = MODELS[DEFAULT_MODEL].weights
    assert default is not None
    assert f"`{default.sha256}`" in text
    [dependencies] = re.findall(
        r"^dependencies = \[(.*?)^\]", (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL | re.M
    )
    packages = re.findall(r'^    "([\w-]+)', dependencies, flags=re.MULTILINE)
    assert len(packages) > 20
    assert [package for package in packages if f"`{package}`" not in text] == []


def test_every_module_of_the_sam_stage_is_on_the_page_of_architecture() -> None:
    folder = REPOSITORY / "nnunet_sfr" / "sam_stage"
    modules = {file.name for file in folder.glob("*.py")} - {"__init__.py"}
    packages = {f"{file.parent.name}/" for file in folder.glob("*/__init__.py")}
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    [section] = re.findall(r"`sam_stage/`, file by file:(.*?)\n\n[A-Z]", text, flags=re.DOTALL)
    assert (
        set(re.findall(r"`(\w+(?:\.py|/))`", "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
        == modules | packages
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_run_can_be_run(page: Path) -> None:
    """``-m nnunet_sfr.entry_points.finetune`` does nothing without the last lines of a script."""
    for module in set(re.findall(r"-m nnunet_sfr\.entry_points\.(\w+)", page.read_text(encoding="utf-8"))):
        file = REPOSITORY / "entry_points" / f"{module}.py"
        assert 'if __name__ == "__main__":' in file.read_text(encoding="utf-8"), (
            f"{file} does nothing when it is run with -m"
        )


def typed_commands(page: Path) -> list[list[str]]:
    """The words of every command of ours in the shell blocks of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("sfr_")]


WITH_A_NEW_CHOICE = ("add-a-sam.md", "add-a-confidence-measure.md")
WITH_COMMANDS = [page for page in PAGES if typed_commands(page) and page.name not in WITH_A_NEW_CHOICE]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_in_the_documentation_can_be_typed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their options exist and go together."""
    for name, *arguments in typed_commands(page):
        command = import_module(f"nnunet_sfr.entry_points.{name.removeprefix('sfr_')}")
        monkeypatch.setattr(command, "run", lambda *_, **__: 0)
        monkeypatch.setattr(sys, "argv", [name, *(word for word in arguments if word not in ("&", "…"))])
        assert command.main() == 0, (name, arguments)


def test_every_command_in_the_readme_exists() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    scripts = set(
        re.findall(r"^(sfr_\w+) = ", (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert scripts
    assert set(re.findall(r"\bsfr_\w+", text)) == scripts
