"""What the server answers: the page, the volumes of a case, and the decisions.

The browser names cases and sources, which are looked up in the session; no path is made of what it sends.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from nnunet_sfr.errors import UserError
from nnunet_sfr.review.add_labels_run import AddLabelsRun
from nnunet_sfr.review.guard import Guard
from nnunet_sfr.review.session_promise import SessionPromise

ASSETS = Path(__file__).with_name("assets")
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_PIECE = 2**22
"""Bytes of a volume that are sent at a time."""


def make_application(promise: SessionPromise, token: str) -> ASGIApp:
    """The server's application.

    Args:
        promise: gives the session once it is there.
        token: first part of every address.
    """
    return Guard(_Answers(promise).application(), token)


class _Answers:
    """One method an address."""

    def __init__(self, promise: SessionPromise) -> None:
        self._promise = promise
        self._add_labels_run: AddLabelsRun | None = None
        self._run_lock = threading.Lock()
        self._assets = {
            file.relative_to(ASSETS).as_posix(): file for file in ASSETS.rglob("*") if file.suffix in MEDIA_TYPES
        }

    def application(self) -> Starlette:
        case = "/cases/{case}"
        routes = [
            Route("/", self.page),
            Route("/assets/{name:path}", self.asset),
            Route("/session", self.session),
            Route(case, self.case),
            Route(f"{case}/image/{{channel:int}}", self.image),
            Route(f"{case}/labels/{{source}}", self.labels),
            Route(f"{case}/draft", self.save_draft, methods=["PUT"]),
            Route(f"{case}/label", self.save, methods=["PUT"]),
            Route(f"{case}/accept/{{source}}", self.accept, methods=["POST"]),
            Route(f"{case}/skip", self.skip, methods=["POST"]),
            Route(f"{case}/prepare", self.prepare, methods=["POST"]),
            Route("/added", self.added),
            Route("/added", self.add, methods=["POST"]),
        ]
        handlers: Mapping[Any, Callable[[Request, Exception], Response]] = {
            UserError: _user_error,
            HTTPException: _http_error,
            Exception: _own_error,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    def page(self, request: Request) -> Response:
        return self._file("page.html")

    def asset(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        file = self._assets.get(name)
        if file is None:
            raise HTTPException(404, "there is no such file")
        return Response(file.read_bytes(), media_type=MEDIA_TYPES[file.suffix])

    def session(self, request: Request) -> Response:
        return JSONResponse(self._promise.session().to_json())

    def case(self, request: Request) -> Response:
        return JSONResponse(self._promise.session().case_to_json(self._name(request)))

    def image(self, request: Request) -> Response:
        session, channel = self._promise.session(), request.path_params["channel"]
        if channel >= session.num_channels:
            raise HTTPException(404, "there is no such channel")
        return _volume(session.image(self._name(request), channel), "application/octet-stream")

    def labels(self, request: Request) -> Response:
        labels = self._promise.session().labels(self._name(request), request.path_params["source"])
        return _volume(labels, "application/gzip")

    async def save_draft(self, request: Request) -> Response:
        return await self._upload(request, lambda name, body: self._promise.session().save_draft(name, body))

    async def save(self, request: Request) -> Response:
        return await self._upload(request, lambda name, body: self._promise.session().save(name, body))

    async def _upload(self, request: Request, take: Callable[[str, bytes], None]) -> Response:
        name = await run_in_threadpool(self._name, request)
        limit = await run_in_threadpool(self._promise.session().largest_upload, name)
        body = await _read_body(request, limit)
        await run_in_threadpool(take, name, body)
        return self._case_state(name)

    def accept(self, request: Request) -> Response:
        name = self._name(request)
        self._promise.session().accept(name, request.path_params["source"])
        return self._case_state(name)

    def skip(self, request: Request) -> Response:
        name = self._name(request)
        self._promise.session().skip(name)
        return self._case_state(name)

    def prepare(self, request: Request) -> Response:
        self._promise.session().prepare(self._name(request))
        return Response(status_code=204)

    def added(self, request: Request) -> Response:
        """The command that takes the label maps, and how it got on, if it was started here."""
        session = self._promise.session()
        with self._run_lock:
            run = self._add_labels_run or AddLabelsRun.of(session)
            if run.has_ended_well and run is self._add_labels_run:
                self._add_labels_run = None
                session.reload()
            return JSONResponse({**run.to_json(), "decided": len(session.decided)})

    def add(self, request: Request) -> Response:
        with self._run_lock:
            if self._add_labels_run is None or self._add_labels_run.has_ended:
                self._add_labels_run = AddLabelsRun.of(self._promise.session())
                self._add_labels_run.start()
            return JSONResponse(self._add_labels_run.to_json())

    def _case_state(self, name: str) -> Response:
        return JSONResponse(self._promise.session().case_state(name))

    def _name(self, request: Request) -> str:
        name: str = request.path_params["case"]
        if not self._promise.session().has(name):
            raise HTTPException(404, "there is no such case among those to review; load the page again")
        return name


def _volume(content: bytes | memoryview, media_type: str) -> Response:
    async def pieces() -> AsyncIterator[memoryview]:
        view = memoryview(content)
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]

    return StreamingResponse(pieces(), media_type=media_type, headers={"Content-Length": str(len(content))})


async def _read_body(request: Request, limit: int) -> bytes:
    """The body of a request, read no further than the limit."""
    too_large = HTTPException(413, "what the page sent is larger than a label map of this case; nothing was changed")
    if int(request.headers.get("content-length", "0")) > limit:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 409)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"problem": error.detail}, error.status_code)


def _own_error(request: Request, error: Exception) -> Response:
    traceback.print_exception(error)
    return JSONResponse(
        {"problem": f"{type(error).__name__} in sfr_review: see its terminal; nothing was changed"}, 500
    )
