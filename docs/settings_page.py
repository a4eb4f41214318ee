"""Makes docs/settings.md from nnunet_sfr/settings.py, so that the page cannot say something else than the code.

python docs/settings_page.py
"""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "nnunet_sfr" / "settings.py"
PAGE = REPOSITORY / "docs" / "settings.md"
SECTIONS = {
    "stitching": "StitchingSettings",
    "sam": "SAMSettings",
    "fine_tuning": "FineTuningSettings",
    "pseudo_labels": "PseudoLabelSettings",
    "retraining": "RetrainingSettings",
    "rounds": "RoundSettings",
}
INTRODUCTION = """# Settings

`sfr_plan_and_preprocess` writes `nnUNet_preprocessed/<data set>/<plans>_SFRPlans.json`. Each nnU-Net configuration has
the sections below; edit the values there, they are checked whenever the file is read. Keys that are left out take the
default. `derived_from` says which nnU-Net plan the entry belongs to: leave it alone.

<!-- made by docs/settings_page.py from nnunet_sfr/settings.py -->
"""


def render() -> str:
    """The page as text."""
    classes = {node.name: node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.ClassDef)}
    return INTRODUCTION + "".join(_section(name, classes[class_name]) for name, class_name in SECTIONS.items())


def _section(name: str, definition: ast.ClassDef) -> str:
    rows = ["| Setting | Default | Meaning |", "|---|---|---|"]
    statements = definition.body
    for index, statement in enumerate(statements):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        default = "derived from the plan" if statement.value is None else f"`{_json(statement.value)}`"
        rows.append(f"| `{statement.target.id}` | {default} | {_meaning(statements, index)} |")
    title = " ".join((ast.get_docstring(definition) or "").split())
    return f"\n## `{name}`\n\n{title}\n\n" + "\n".join(rows) + "\n"


def _meaning(statements: list[ast.stmt], index: int) -> str:
    """The docstring under a field."""
    statement = statements[index + 1]
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        raise ValueError(f"{SOURCE}: line {statement.lineno}: the setting above has no docstring")
    return " ".join(str(statement.value.value).split()).replace("``", "`").replace("|", "\\|")


def _json(value: ast.expr) -> str:
    text = ast.unparse(value).replace("'", '"').replace("(", "[").replace(")", "]")
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


if __name__ == "__main__":
    PAGE.write_text(render())
