"""Makes docs/settings.md from the settings and the tables of models, adaptations and measures: what the code says.

python docs/settings_page.py
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr import settings
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.planner_names import CPU_PLANNER
from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS

PAGE = Path(__file__).resolve().parent / "settings.md"
SECTIONS: Mapping[str, type] = {
    "stitching": settings.StitchingSettings,
    "sam": settings.SAMSettings,
    "fine_tuning": settings.FineTuningSettings,
    "pseudo_labels": settings.PseudoLabelSettings,
    "retraining": settings.RetrainingSettings,
    "rounds": settings.RoundSettings,
    "crosscheck": settings.CrossCheckSettings,
}
INTRODUCTION = """# Settings

`sfr_plan_and_preprocess` writes `nnUNet_preprocessed/<data set>/<plans>_SFRPlans.json`. Each nnU-Net configuration has
the sections below; edit the values there, they are checked whenever the file is read. Keys that are left out take the
default. `derived_from` says which nnU-Net plan the entry belongs to: leave it alone.

<!-- made by docs/settings_page.py from settings.py, sam_models.py, sam_stage/adaptations/, confidence_measures.py -->
"""
HEADER = ("Setting", "Default", "Meaning")

Row = Sequence[str]


def render() -> str:
    """The page as text."""
    page = INTRODUCTION
    for name, section in SECTIONS.items():
        page += f"\n## `{name}`\n\n{_plain(inspect.getdoc(section))}\n\n{_table(HEADER, _settings(section))}"
        for subsection, own in _subsections(section).items():
            heading = f"`{name}.{subsection}`"
            page += f"\n### {heading}\n\n{_plain(inspect.getdoc(own))}\n\n{_table(HEADER, _settings(own))}"
        if name == "sam":
            page += _models() + _adaptations()
        if name == "rounds":
            page += _measures()
    return page


def _subsections(section: type) -> dict[str, type]:
    """The fields of a dataclass that are dataclasses themselves, with their types."""
    hints = typing.get_type_hints(section)
    return {name: hint for name, hint in hints.items() if isinstance(hint, type) and dataclasses.is_dataclass(hint)}


def _models() -> str:
    rows = [(f"`{model.name}`", model.summary, _adaptations_of(model), _of_model(model)) for model in MODELS.values()]
    header = ("`sam.model`", "What it is", "`sam.adaptation` in a new plan", "`fine_tuning` in a new plan")
    return (
        "\n### Models\n\nA new plan has the defaults, but for what stands here; the values of an adaptation win over "
        f"those of the model.\n\n{_table(header, rows)}"
    )


def _adaptations_of(model: SAMModel) -> str:
    on_cpu, on_gpu = (f"`{model.planned_adaptation(for_gpu=for_gpu)}`" for for_gpu in (False, True))
    return on_gpu if on_cpu == on_gpu else f"{on_gpu}, with `{CPU_PLANNER}` {on_cpu}"


def _adaptations() -> str:
    rows = [
        (f"`{adaptation.name}`", adaptation.summary, _values(adaptation.fine_tuning))
        for adaptation in ADAPTATIONS.values()
    ]
    header = ("`sam.adaptation`", "What is trained", "`fine_tuning` in a new plan")
    own = [
        (f"`{adaptation.name}`", *row) for adaptation in ADAPTATIONS.values() for row in _settings(adaptation.settings)
    ]
    return (
        f"\n### Adaptations\n\n{_table(header, rows)}"
        f"\nTheir own settings, in `sam.adaptation_settings`:\n\n{_table(('`sam.adaptation`', *HEADER), own)}"
    )


def _measures() -> str:
    rows = [(f"`{name}`", measure.meaning, _names(measure.entries)) for name, measure in MEASURES.items()]
    header = ("`rounds.confidence`", "What it is", "Entries of the record")
    return f"\n### Measures of confidence\n\n{_table(header, rows)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _settings(section: type) -> list[Row]:
    """(name, default, meaning) of every field of a dataclass."""
    meanings, subsections = _meanings(section), _subsections(section)
    return [
        (f"`{field.name}`", _default(field), meanings[field.name])
        for field in dataclasses.fields(section)
        if field.name not in subsections
    ]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{json.dumps(field.default)}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    return "derived from the plan"


def _meanings(section: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass, by field."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    meanings: dict[str, str] = {}
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if not isinstance(following, ast.Expr) or not isinstance(following.value, ast.Constant):
            raise ValueError(f"{section.__name__}.{statement.target.id} has no docstring")
        meanings[statement.target.id] = _plain(str(following.value.value))
    return meanings


def _plain(docstring: str | None) -> str:
    """A docstring as Markdown on one line."""
    text = " ".join((docstring or "").split()).replace("``", "`").replace("|", "\\|")
    text = re.sub(r":\w+:`", "`", text)
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


def _of_model(model: SAMModel) -> str:
    further = (f"with `{name}` {_values(values)}" for name, values in model.fine_tuning_with.items())
    return "; ".join((_values(model.fine_tuning), *further))


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {json.dumps(value)}" for name, value in values.items()) or "-"


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(row)} |\n" for row in (header, *rows)]
    return "".join([lines[0], f"|{'---|' * len(header)}\n", *lines[1:]])


if __name__ == "__main__":
    PAGE.write_text(render())
