"""The server of ``sfr_review``: bound to this machine alone, running beside the command until that ends it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from nnunet_sfr.errors import UserError

LOOPBACK = "127.0.0.1"


def bind(port: int | None) -> socket.socket:
    """A socket of this machine.

    Args:
        port: None for any that is free.

    Raises:
        UserError: the port is taken, or not ours to take.
    """
    listening = socket.socket()
    if os.name != "nt":  # on Windows the option would share a port that is taken
        # without it the port stays closed for a minute after the connections of an earlier review
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port or 0))
        listening.listen()  # who comes before the server runs waits, and is not refused
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port}: cannot be used ({error.strerror}); choose another with --port, or leave it out for any that "
            "is free"
        ) from None
    return listening


@contextlib.contextmanager
def serving(application: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serve an application in a thread while the context lasts.

    Args:
        application: to serve.
        listening: socket that :func:`bind` made.
    """
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_level="warning",
        access_log=False,  # its lines would hold the token
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
