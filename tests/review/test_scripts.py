"""Scripts of the page that need no page, in Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nnunet_sfr.review.application import ASSETS

UPLOADS = """
globalThis.addEventListener = () => {};
const { Drafts } = await import("./drafts.js");
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


ENDINGS = """
const { howItEnded } = await import("./done.js");
for (const [code, half_done] of [[0, false], [1, true], [1, false]]) console.log(howItEnded({ code, half_done }));
"""


def printed(script: str, folder: Path) -> list[str]:
    """What a script prints that may import those of the page."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js")
    for file in ASSETS.glob("*.js"):
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "script.js").write_text(script)
    ended = subprocess.run([node, "script.js"], capture_output=True, text=True, cwd=folder, check=True)
    return ended.stdout.splitlines()


def test_a_flush_waits_for_every_upload(tmp_path: Path) -> None:
    # while the second is on its way, the two that wait for it are not resolved
    assert printed(UPLOADS, tmp_path) == ["first second 1", "2 3"]


def test_nothing_is_promised_of_an_sfr_add_labels_that_did_not_succeed(tmp_path: Path) -> None:
    assert printed(ENDINGS, tmp_path) == [
        "The cases are labelled now. What is to be run again is said below.",
        "sfr_add_labels has stopped half-way; run it again to complete it. What it said:",
        "sfr_add_labels has not succeeded. What it said:",
    ]
