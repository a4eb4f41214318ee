"""From the command to the page: the server first, then the session, then the browser."""

from __future__ import annotations

import contextlib
import secrets
import threading
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import Fold
from nnunet_sfr.review.application import make_application
from nnunet_sfr.review.redirect import redirect_file
from nnunet_sfr.review.serving import LOOPBACK, bind, serving
from nnunet_sfr.review.session_promise import SessionPromise

if TYPE_CHECKING:
    from nnunet_sfr.review.session import Session

_TOKEN_BYTES = 32
_READERS = 2
"""Volumes that are read at a time: the image and its labels."""


def review(
    dataset_name_or_id: str,
    configuration: str | None,
    plans: str | None,
    fold: Fold,
    *,
    typed: str,
    port: int | None = None,
    open_browser: bool = True,
    stop: threading.Event | None = None,
) -> None:
    """Show the cases of a data set until Ctrl-C.

    Args:
        dataset_name_or_id: nnU-Net's name or number.
        configuration: whose pseudo-labels; None for nnU-Net's default, or the only one that was planned.
        plans: whose; None for nnU-Net's default, or the only ones of the data set.
        fold: whose.
        typed: the command as the user gave it, for others who find the review open.
        port: None for any that is free.
        open_browser: whether the page is opened, too.
        stop: ends it, as Ctrl-C does.

    Raises:
        UserError: the port is taken, there is nothing to review, or somebody reviews it already.
    """
    stop = stop or threading.Event()
    token, promise = secrets.token_urlsafe(_TOKEN_BYTES), SessionPromise()
    listening = bind(port)
    port = listening.getsockname()[1]
    address = f"http://{LOOPBACK}:{port}/{token}/"
    with serving(make_application(promise, token), listening), ThreadPoolExecutor(_READERS) as executor:
        print(f"the page is {address}", flush=True)
        print(f"from another machine: ssh -C -N -L {port}:{LOOPBACK}:{port} <this machine>, and the same address")
        try:
            # these take half a second to import, in which the page is there already
            from nnunet_sfr.dataset import open_dataset
            from nnunet_sfr.review.lock import only_review
            from nnunet_sfr.review.session import Session

            dataset = open_dataset(dataset_name_or_id, configuration, plans)
            with only_review(dataset.paths.review, typed), redirect_file(address, dataset.paths.review) as redirect:
                session = Session(dataset, fold, executor)
                promise.fulfil(session)
                executor.submit(_read_first, session)  # which imports nnU-Net
                for problem in session.problems:
                    print(f"not shown: {problem}")
                print(f"{len(session.to_json()['cases'])} cases; end with Ctrl-C, nothing is lost", flush=True)
                if open_browser and not webbrowser.open(redirect.as_uri()):
                    print("no browser was found: open the address yourself", flush=True)
                _wait(stop)
                decided = len(session.decided)
        except BaseException as error:
            promise.fail(str(error) if isinstance(error, UserError) else "sfr_review has ended; see its terminal")
            raise
    print(f"{decided} {'case is' if decided == 1 else 'cases are'} decided; the same command continues")


def _read_first(session: Session) -> None:
    """Begin with the case that the page will ask for first; what is wrong with it the page will say."""
    first = session.next_open()
    if first is not None:
        with contextlib.suppress(UserError):
            session.prepare(first)


def _wait(stop: threading.Event) -> None:
    # Ctrl-C is the usual way to end it, and no interruption
    try:
        stop.wait()
    except KeyboardInterrupt:
        print()
