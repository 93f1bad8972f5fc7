"""A server of the playground in a thread of the tests."""

import contextlib
import threading
import time

import pytest

uvicorn = pytest.importorskip("uvicorn")
client = pytest.importorskip("websockets.sync.client")
WebSocketRoute = pytest.importorskip("starlette.routing").WebSocketRoute

from fastmlp.playground import server as playground  # noqa: E402


class served:
    """A context in which the application listens on a free port."""

    def __init__(self, table=None):
        self.listening = playground.bound(0)
        self.port = self.listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        app = playground.application(self.port, table)
        (self.pages,) = [route.endpoint.__self__ for route in app.routes if isinstance(route, WebSocketRoute)]
        self.server = uvicorn.Server(playground.configuration(app))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.wait_for(lambda: self.server.started)
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join(30)
        self.listening.close()

    @staticmethod
    def wait_for(condition, seconds=30):
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.01)

    def page(self, **more):
        """Return a connection like a page's; `more` are arguments of the client."""
        return served.page_of(self.port, **more)

    @staticmethod
    @contextlib.contextmanager
    def page_of(port, **more):
        with client.connect(f"ws://127.0.0.1:{port}/session", **{"origin": f"http://127.0.0.1:{port}", **more}) as page:
            yield page
