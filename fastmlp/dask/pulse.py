"""Which workers a client takes for lost: those that have left the cluster, and those that send no heartbeats."""

from __future__ import annotations

import asyncio
import time

from distributed import Client

from fastmlp.dask.sessions import WorkerLost

#: Seconds between two looks at which workers are there.
LOOK = 1.0


class Pulse:
    """The heartbeats of a cluster's workers, as the scheduler has heard them.

    A worker that was stopped keeps its connections, so nothing but its silence tells. Its clock may be another one, so
    what counts is how long the client has seen no new heartbeat.

    Parameters
    ----------
    client : distributed.Client
    timeout : float
        Seconds of silence after which a worker is taken for lost.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self.client, self.timeout = client, timeout
        self._seen: dict[str, tuple[float, float]] = {}  # address -> its latest heartbeat, when that was noticed
        self._awake = 0.0  # seconds since the first look, without those in which this process was stopped
        self._previous = time.monotonic()
        self._next_look = 0.0
        self._no_workers_since: float | None = None

    async def look(self, at_once: bool = False) -> None:
        """Hear of the latest heartbeats, now and then: the answer of a large cluster is long. Call it every second.

        `at_once` is for what cannot wait for the next time.

        Raises
        ------
        RuntimeError
            If there has been no worker for the timeout.
        ConnectionError
            If the scheduler does not answer.
        """
        self._awake += min(time.monotonic() - self._previous, 2 * LOOK)
        self._previous, now = time.monotonic(), self._awake
        if now < self._next_look and not at_once:
            return
        self._next_look = now + max(LOOK, self.timeout / 20)
        try:
            answer = await asyncio.wait_for(self.client.scheduler.identity(n_workers=-1), self.timeout)
        except OSError as error:  # a TimeoutError is one
            raise ConnectionError(f"lost the connection to the scheduler during the fit: {error}") from error
        workers = answer["workers"]
        seen = {address: (worker["last_seen"], now) for address, worker in workers.items()}
        before = self._seen
        self._seen = {
            address: before[address] if address in before and before[address][0] == beat else (beat, noticed)
            for address, (beat, noticed) in seen.items()
        }
        if workers:
            self._no_workers_since = None
            return
        self._no_workers_since = now if self._no_workers_since is None else self._no_workers_since
        if now - self._no_workers_since > self.timeout:
            raise RuntimeError(
                f"the cluster of {self.client.scheduler.address} has had no workers for {self.timeout:g} s"
            )

    def silent(self) -> list[str]:
        """Return the workers that have sent no heartbeat for the timeout."""
        return [address for address, (_, noticed) in self._seen.items() if self._awake - noticed > self.timeout]

    def why_lost(self, address: str) -> str:
        """Return what has become of a worker, as the rest of a sentence; no text if it is there."""
        if address not in self._seen:
            return "has died or left the cluster"
        if self._awake - self._seen[address][1] > self.timeout:
            return f"has sent no heartbeat for {self.timeout:g} s: it hangs"
        return ""

    def hangs(self, address: str) -> WorkerLost:
        """Return the error about a silent worker."""
        return WorkerLost(f"worker {address} {self.why_lost(address)}", -1, address)
