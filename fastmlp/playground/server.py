"""The web: the page's files, and a WebSocket per page, on this machine alone.

The socket listens on 127.0.0.1, so no other machine reaches it.  A page of another site that the user visits runs on
this machine, too: requests whose Host is another name (DNS rebinding) and WebSockets whose Origin is another page are
refused.
"""

from __future__ import annotations

import logging
import mimetypes
import socket
import threading
import warnings
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmlp.data.optional import needed
from fastmlp.playground.conversation import Conversation
from fastmlp.playground.data import Table

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.websockets import WebSocket

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
STATIC = Path(__file__).parent / "static"

#: Pages at the same time, and bytes of a message from one.
MOST_PAGES, MOST_BYTES = 16, 1 << 16

#: Why a page's WebSocket was closed, for the page: too many pages.
TOO_MANY = 4001

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' {sockets}; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(port: int, table: Table | None = None) -> Starlette:
    """Return the application for the port on which it is served.

    An ImportError names the extra if Starlette is missing.
    """
    needed("starlette", "fastmlp playground", '"fastmlp[playground]"')
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Mount, WebSocketRoute
    from starlette.staticfiles import StaticFiles

    mimetypes.add_type("text/javascript", ".js")  # some Windows machines say otherwise, and no module loads
    pages = _Pages(table, {f"http://{name}:{port}" for name in NAMES})
    sockets = " ".join(f"ws://{name}:{port}" for name in NAMES)
    headers = {name: text.format(sockets=sockets) for name, text in HEADERS.items()}
    return Starlette(
        routes=[WebSocketRoute("/session", pages.talk), Mount("/", StaticFiles(directory=STATIC, html=True))],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(NAMES), www_redirect=False),
            Middleware(_Headers, headers=headers),
        ],
    )


class _Pages:
    """The pages that are open."""

    def __init__(self, table: Table | None, origins: set[str]) -> None:
        self.table, self.origins, self.n_open = table, origins, 0

    async def talk(self, page: WebSocket) -> None:
        """Answer the messages of a page until it is closed; its session ends with it."""
        from starlette.concurrency import run_in_threadpool
        from starlette.websockets import WebSocketDisconnect

        if page.headers.get("origin") not in self.origins:
            await page.close(1008)  # before it is accepted: 403
            return
        await page.accept()
        if self.n_open >= MOST_PAGES:
            await page.close(TOO_MANY)
            return
        self.n_open += 1
        try:
            conversation = await run_in_threadpool(Conversation, self.table)
            while True:
                message = await page.receive_text()
                for part in await run_in_threadpool(conversation.answer, message):
                    await (page.send_text(part) if isinstance(part, str) else page.send_bytes(part))
        except (WebSocketDisconnect, KeyError):  # KeyError: bytes in place of a text
            return
        finally:
            self.n_open -= 1


class _Headers:
    """Add headers to every answer of HTTP."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        self.app = app
        self.headers = [(name.lower().encode(), text.encode()) for name, text in headers.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


# --- one command ------------------------------------------------------------------------------------------------------


def serve(
    table: Table | None = None,
    *,
    port: int = 0,
    browser: bool = True,
    tell: Callable[[str], object] = print,
) -> None:
    """Serve the playground until Ctrl-C or a request to end.

    Parameters
    ----------
    table : Table, default=None
        A data set of the user's.
    port : int, default=0
        0 takes a free one.
    browser : bool, default=True
        Whether to open the page.
    tell : callable, default=print
        Gets the address.

    Raises
    ------
    ImportError
        If Starlette or uvicorn is missing; it names the extra.
    OSError
        If the port cannot be had.
    """
    for package in ("starlette", "websockets", "uvicorn"):
        needed(package, "fastmlp playground", '"fastmlp[playground]"')
    import uvicorn

    with bound(port) as listening:
        port = listening.getsockname()[1]
        address = f"http://{HOST}:{port}/"
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")  # what there is to warn of, the page shows
        tell(address)
        if browser:
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
        try:
            uvicorn.Server(configuration(application(port, table))).run(sockets=[listening])
        except KeyboardInterrupt:
            return


def configuration(app: Starlette) -> Any:
    """Return how uvicorn serves the application."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=MOST_BYTES,
        ws_per_message_deflate=False,  # frames go no further than this machine
        timeout_graceful_shutdown=1,
        server_header=False,
    )


def bound(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1; an OSError says that the port cannot be had."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: no other program may take the port, too
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise OSError(f"port {port} of {HOST} cannot be had: {getattr(error, 'strerror', None) or error}") from None
    return listening
