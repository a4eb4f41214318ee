"""Who may talk to the server, and what it answers; over real sockets."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnunet_sfr.paths import DatasetPaths
from nnunet_sfr.review import add_labels_run
from nnunet_sfr.review.guard import HEADERS
from tests.patience import PATIENCE, wait_until
from tests.review.reviewed_project import FIRST, TOKEN, Served, served
from tests.tiny_project import project_copy

VOXELS = 18 * 22 * 20


@pytest.fixture(scope="module")
def server(planned_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with project_copy(planned_root, tmp_path_factory.mktemp("served")) as project, served(project) as running:
        yield running


def ask(
    server: Served, path: str, method: str = "GET", *, token: str = TOKEN, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Status and content; a request as a page of the server makes it, but for ``headers``."""
    connection = http.client.HTTPConnection(server.host, timeout=PATIENCE)
    sent = {"Host": server.host, "Origin": f"http://{server.host}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, f"/{token}/{path}", body, {name: value for name, value in sent.items() if value})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert {name: response.getheader(name) for name in HEADERS} == HEADERS
    is_json = response.getheader("Content-Type") == "application/json"
    return response.status, json.loads(content) if is_json else content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": "another"}, b"the token in the address is wrong"),
        ({"token": ""}, b"the token in the address is wrong"),
        ({"token": TOKEN[:-1]}, b"the token in the address is wrong"),
        ({"token": f"../{TOKEN}"}, b"the token in the address is wrong"),
        ({"Origin": "http://example.org"}, b"comes from another page"),
        ({"Origin": "null"}, b"comes from another page"),
        ({"Origin": "http://127.0.0.1:1"}, b"comes from another page"),
        ({"Sec_Fetch_Site": "cross-site"}, b"comes from another page"),
        ({"Sec_Fetch_Site": "same-site"}, b"comes from another page"),
        ({"Host": "example.org"}, b"answers to 127.0.0.1 and localhost alone"),
        ({"Host": "127.0.0.1.example.org:80"}, b"answers to 127.0.0.1 and localhost alone"),
        ({"Host": "["}, b"answers to 127.0.0.1 and localhost alone"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "session"), ("PUT", f"cases/{FIRST}/label"), ("POST", "added")])
def test_strangers_are_refused(change: dict[str, str], message: bytes, method: str, path: str, server: Served) -> None:
    status, content = ask(server, path, method, body=gzip.compress(bytes(VOXELS)), **change)
    assert (status, message in content) == (403, True)
    assert server.session.decided == []


def test_who_does_not_say_where_from_may_read_alone(server: Served) -> None:
    assert ask(server, "session", Origin="")[0] == 200
    status, content = ask(server, f"cases/{FIRST}/skip", "POST", Origin="")
    assert (status, content) == (403, b"refused: the request does not say where it comes from")
    tunnel = "localhost:8000"
    assert ask(server, "session", Host=tunnel, Origin=f"http://{tunnel}")[0] == 200


def test_the_file_that_sfr_review_opens_leads_to_the_page_and_nowhere_else(server: Served) -> None:
    tab: dict[str, Any] = {
        "Origin": "",
        "Sec_Fetch_Site": "cross-site",
        "Sec_Fetch_Mode": "navigate",
        "Sec_Fetch_Dest": "document",
    }
    assert ask(server, "", **tab)[0] == 200
    assert ask(server, "session", **tab)[0] == 403
    assert ask(server, "", **{**tab, "Sec_Fetch_Dest": "iframe"})[0] == 403
    assert ask(server, "", **{**tab, "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script"})[0] == 403
    assert ask(server, "", token="another", **tab)[0] == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", 200),
        ("assets/page.js", 200),
        ("assets/niivue/niivue.umd.js", 200),
        ("assets/niivue/LICENSE", 404),
        ("assets/../application.py", 404),
        ("assets/%2e%2e/application.py", 404),
        ("assets//etc/passwd", 404),
        ("cases/..%2F..%2Fetc%2Fpasswd", 404),
        ("cases/%2Fetc%2Fpasswd/image/0", 404),
        (f"cases/{FIRST}/image/1", 404),
        (f"cases/{FIRST}/image/-1", 404),
        (f"cases/{FIRST}/labels/..", 409),
        (f"cases/{FIRST}/labels/round_9", 409),
        ("cases/no_such_case", 404),
        (f"cases/{FIRST}/label", 405),
    ],
)
def test_names_are_looked_up_and_never_paths(path: str, status: int, server: Served) -> None:
    assert ask(server, path)[0] == status


def test_what_the_page_reads(server: Served) -> None:
    status, session = ask(server, "session")
    assert (status, session["dataset"], len(session["cases"])) == (200, "Dataset042_Tiny", 2)
    assert ask(server, f"cases/{FIRST}")[1]["shape"] == [20, 22, 18]
    status, image = ask(server, f"cases/{FIRST}/image/0")
    assert (status, len(image)) == (200, 352 + 4 * VOXELS)
    status, labels = ask(server, f"cases/{FIRST}/labels/round_0")
    assert (status, len(gzip.decompress(labels))) == (200, VOXELS)


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"no gzip", 409, "incorrect header check; nothing was changed"),
        (gzip.compress(bytes(VOXELS - 1)), 409, f"which has {VOXELS} voxels; nothing was changed"),
        (gzip.compress(bytes([2] * VOXELS)), 409, "does not name the label 2; nothing was changed"),
        (bytes(2 * VOXELS), 413, "larger than a label map of this case; nothing was changed"),
    ],
)
@pytest.mark.parametrize("where", ["draft", "label"])
def test_uploads_are_bounded_and_checked(body: bytes, status: int, problem: str, where: str, server: Served) -> None:
    for headers in ({}, {"Content_Length": ""}):
        found, content = ask(server, f"cases/{FIRST}/{where}", "PUT", body=body, **headers)
        assert (found, problem in content["problem"]) == (status, True)
    assert server.session.case_state(FIRST) == {
        "state": "open",
        "changed_voxels": 0,
        "has_draft": False,
        "is_deleted": False,
    }


def test_an_upload_of_unknown_length_is_read_no_further_than_the_limit(server: Served) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=PATIENCE)
    pieces = (bytes(2**16) for _ in range(64))
    headers = {"Origin": f"http://{server.host}", "Transfer-Encoding": "chunked"}
    try:
        connection.request("PUT", f"/{TOKEN}/cases/{FIRST}/label", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up while more was being sent
    finally:
        connection.close()
    assert server.session.decided == []


def test_an_error_of_ours_is_told_and_keeps_the_server_running(
    server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(server.session, "skip", broken)
    status, content = ask(server, f"cases/{FIRST}/skip", "POST")
    assert (status, content["problem"].startswith("ValueError in sfr_review: see its terminal")) == (500, True)
    assert "a bug" in capsys.readouterr().err
    assert ask(server, "session")[0] == 200


@pytest.mark.parametrize("code", [0, 1])
def test_sfr_add_labels_is_shown_and_run(code: int, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add_labels_run, "_MODULE", "tests.review.pretended_add_labels")
    monkeypatch.setenv("PRETENDED_EXIT_CODE", str(code))
    reloads: list[None] = []
    monkeypatch.setattr(server.session, "reload", lambda: reloads.append(None))
    corrected = server.session.progress.corrected
    command = f"sfr_add_labels -d Dataset042_Tiny -i {corrected}"
    before = {"command": command, "running": False, "code": None, "half_done": False, "output": "", "decided": 0}
    assert ask(server, "added") == (200, before)

    assert ask(server, "added", "POST")[0] == 200
    answers: list[dict[str, Any]] = []

    def has_ended() -> bool:
        answers.append(ask(server, "added")[1])
        return not answers[-1]["running"]

    wait_until(has_ended, "the command has ended")
    answer = answers[-1]  # the first after its end: the next says that it can be run again
    assert answer["code"] == code
    # a progress bar writes over its line, and the last state of it is what is shown
    assert answer["output"] == f"progress 100 %\ntaken: -d Dataset042_Tiny -i {corrected}\n"
    assert len(reloads) == (1 if code == 0 else 0)


def test_an_sfr_add_labels_that_stopped_half_way_is_told(server: Served) -> None:
    journal = DatasetPaths("Dataset042_Tiny").raw / ".sfr_add_labels" / ".journal.json"
    assert ask(server, "added")[1]["half_done"] is False
    journal.parent.mkdir()
    journal.write_text("{}")
    assert ask(server, "added")[1]["half_done"] is True
    shutil.rmtree(journal.parent)
