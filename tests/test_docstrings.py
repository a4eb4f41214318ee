"""Public functions say what their arguments are."""

from __future__ import annotations

from docs.docstrings import public_functions


def test_public_functions_explain_their_arguments() -> None:
    found = public_functions()
    assert len(found) > 200
    assert [function.where for function in found if not function.explained] == []
