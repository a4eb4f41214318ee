"""The session of a review, for callers who ask before it is there: the page is served while cases are being listed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from nnunet_sfr.errors import UserError

if TYPE_CHECKING:
    from nnunet_sfr.review.session import Session


class SessionPromise:
    """Holds a session that comes later, or the reason why it does not."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._session: Session | None = None
        self._problem = ""

    def session(self) -> Session:
        """Wait for the session.

        Raises:
            UserError: it could not be opened.
        """
        self._event.wait()
        if self._session is None:
            raise UserError(self._problem)
        return self._session

    def fulfil(self, session: Session) -> None:
        self._session = session
        self._event.set()

    def fail(self, problem: str) -> None:
        self._problem = problem
        self._event.set()
