"""Drafts on their way to the server, in Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nnunet_sfr.review.application import ASSETS

SCRIPT = """
globalThis.addEventListener = () => {};
const { Drafts } = await import("./drafts.mjs");
const sent = [];
const drafts = new Drafts((name) => new Promise((resolve) => sent.push([name, resolve])), () => {}, () => {});
const turn = () => new Promise((resolve) => setTimeout(resolve));
let resolved = 0;
const flush = () => drafts.flush().then(() => { resolved += 1; });
drafts.later("first");
flush();
drafts.later("second");
flush();
flush();
await turn();
sent[0][1]();
await turn();
console.log(sent.map(([name]) => name).join(" "), resolved);
sent[1][1]();
await turn();
console.log(sent.length, resolved);
"""


def test_a_flush_waits_for_every_upload(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js")
    shutil.copy(ASSETS / "drafts.js", tmp_path / "drafts.mjs")
    (tmp_path / "test.mjs").write_text(SCRIPT)
    ended = subprocess.run([node, "test.mjs"], capture_output=True, text=True, cwd=tmp_path, check=True)
    # while the second is on its way, the two that wait for it are not resolved
    assert ended.stdout.splitlines() == ["first second 1", "2 3"]
