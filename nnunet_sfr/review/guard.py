"""Who may talk to the server: pages of this server alone, which know its token.

Other pages in the same browser can send requests to this machine, and a name that they own can be made to point here.
Neither knows the token, and browsers say in ``Origin`` and ``Host`` where a request comes from and what it thinks to
talk to. The token is part of the address and not a cookie: cookies of a machine are sent to all of its ports.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost")
"""Names of this machine; the port may be another one, at the near end of an ssh tunnel."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_READS = ("GET", "HEAD")


class Guard:
    """Passes a request on, without the token in its path, or refuses it with 403.

    Args:
        app: to protect.
        token: first part of every path.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no web sockets, and nothing to do at the start and the end

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        problem = self._problem(scope)
        if problem:
            await PlainTextResponse(problem, 403)(scope, receive, send_with_headers)
            return
        path = scope["path"][1 + len(self._token) :] or "/"
        await self._app({**scope, "path": path, "raw_path": None, "root_path": ""}, receive, send_with_headers)

    def _problem(self, scope: Scope) -> str:
        """Why a request is refused; nothing if it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in LOOPBACK:
            return "refused: this server answers to 127.0.0.1 and localhost alone"
        origin = headers.get("origin")
        if origin is None and scope["method"] not in _READS:
            return "refused: the request does not say where it comes from"
        if origin is not None and origin != f"http://{host}":
            return "refused: the request comes from another page"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not self._opens_page(scope):
            return "refused: the request comes from another page"
        token = scope["path"][1:].partition("/")[0]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return "refused: the token in the address is wrong; use the address that sfr_review printed last"
        return ""

    def _opens_page(self, scope: Scope) -> bool:
        """Whether the browser goes to the page in a tab of its own, as the file that sfr_review opens lets it.

        Who leads it there learns nothing, and can do nothing in the page.
        """
        headers = Headers(scope=scope)
        goes = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        return goes and scope["method"] in _READS and scope["path"] == f"/{self._token}/"


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
