"""Hashes that are stored: a later version has to find them again."""

from __future__ import annotations

import hashlib

import pytest

from nnunet_sfr.hashing import json_hash


def test_hash_of_json_content_is_that_of_its_text_with_sorted_keys() -> None:
    text = '[{"a": [1, 2.5], "b": "\\u00e9"}, null]'
    assert json_hash([{"b": "é", "a": (1, 2.5)}, None]) == hashlib.sha256(text.encode()).hexdigest()


def test_what_is_no_json_is_refused_unless_it_is_said_what_stands_for_it() -> None:
    with pytest.raises(TypeError):
        json_hash([1j])
    assert json_hash([1j], default=str) == json_hash(["1j"])
