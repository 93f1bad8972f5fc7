"""What a worker holds of one fit: its streams to the other workers of the fit, on the worker's event loop.

A session is opened on each worker that has rows, before its task begins: a handler of the worker accepts the streams of
the ranks after it, and the task opens those to the ranks before it.  The streams are Dask's own comms, so addresses,
ports, TLS and UCX are the cluster's.  The name of a fit is part of the handler's name, so two fits never mix.

The task's thread waits at the inbox.  There it also learns that a rank is lost, that one has failed, or that nobody
wants the fit any more.
"""

from __future__ import annotations

import asyncio
import queue
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from distributed import Worker
from distributed.comm import Comm, connect
from distributed.core import Status
from distributed.protocol import Serialized

from fastmlp.distributed.communicator import CommunicationError
from fastmlp.kernels import interrupts

#: Seconds between two looks at whether somebody still wants the fit. A rank that waits counts in such pieces, so it
#: does not blame others for the time in which it was itself stopped, with its machine for instance.
WATCH = 0.5

#: Bytes up to which a part is put into its message; larger ones are frames of their own, which Dask does not copy.
INLINE = 64 * 1024

#: Seconds that a rank which leaves takes to tell the others.
LAST_WORD = 5

PREFIX = "fastmlp-"


class WorkerLost(CommunicationError):
    """A worker that has died, left the cluster, or sent nothing in time: a fit may go on without it.

    Attributes
    ----------
    rank : int
        Its rank in the fit.
    address : str
    """

    def __init__(self, message: str, rank: int, address: str) -> None:
        super().__init__(message, rank)
        self.address = address

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.rank, self.address)


class Unwanted(RuntimeError):
    """Nobody waits for the result of a task any more."""


class Message(NamedTuple):
    """What has come from a rank: an entry of the inbox."""

    rank: int
    parts: list[Any]


class Session:
    """The ends that one rank has of a fit's streams.

    ``accept`` and methods with an underscore belong to the event loop, the others to the task's thread.
    """

    def __init__(self, name: str, worker: Worker, addresses: list[str], timeout: float) -> None:
        self.name, self.worker, self.addresses, self.timeout = name, worker, addresses, timeout
        self.rank = addresses.index(worker.address)
        self.loop = asyncio.get_running_loop()
        self.inbox: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()
        self._early: dict[int, deque[Message]] = defaultdict(deque)
        self._comms: dict[int, asyncio.Future[Comm]] = {
            rank: self.loop.create_future() for rank in range(len(addresses)) if rank != self.rank
        }
        self._writing = {rank: asyncio.Lock() for rank in self._comms}
        # where pieces belong; None: nowhere any more
        self._places: dict[int, asyncio.Queue[memoryview | None]] = {rank: asyncio.Queue() for rank in self._comms}
        self._gone: set[int] = set()  # ranks that have said that they are done
        self._reading: set[int] = set()  # ranks of which a piece comes
        self._silent = {rank: asyncio.Event() for rank in self._comms}  # nothing more comes from a rank
        self._tasks: set[asyncio.Task] = set()
        self._key: Any = None
        self.stop = interrupts.Stop()
        self.has_begun = False  # whether all ranks have
        self._closed = False
        worker.extensions[PREFIX + name] = self
        worker.handlers[PREFIX + name] = self.accept
        self._unused = self.loop.call_later(2 * timeout, self._close)

    # --- on the event loop ----------------------------------------------------------------------------------------

    async def accept(self, comm: Comm, rank: int) -> None:
        """Take over a stream that another rank has opened."""
        await self._listen(rank, comm)

    async def _start(self, key: Any) -> None:
        """Open the streams to the ranks before this one, and begin to watch."""
        self._unused.cancel()
        self._key = key
        self._spawn(self._watch())
        for rank in range(self.rank):
            self._spawn(self._connect(rank))

    async def _connect(self, rank: int) -> None:
        try:
            comm = await connect(self.addresses[rank], self.timeout, **self.worker.connection_args)
            await comm.write({"op": PREFIX + self.name, "rank": self.rank, "reply": False})
        except Exception as error:
            self._lose(rank, f"cannot be reached: {error}")
            return
        await self._listen(rank, comm)

    async def _listen(self, rank: int, comm: Comm) -> None:
        """Put what comes from a rank into the inbox."""
        comm.deserialize = comm.allow_offload = False  # parts are bytes, large ones are not touched
        self._comms[rank].set_result(comm)
        try:
            while not self._closed:
                kind, cause, payload = await comm.read()
                if kind == "data":
                    self.inbox.put(Message(rank, [_unpacked(part) for part in payload]))
                    continue
                if kind == "piece":
                    header, *piece = payload
                    self.inbox.put(Message(rank, [header]))
                    await self._read_piece(rank, comm, *piece)
                    self.inbox.put(Message(rank, [header]))
                    continue
                self._gone.add(rank)
                self._silent[rank].set()
                if kind == "lost":
                    self.inbox.put(WorkerLost(payload, cause, self.addresses[cause]))
                elif kind == "failed":
                    self.inbox.put(CommunicationError(payload, cause))
        except OSError:
            if rank not in self._gone:
                self._lose(rank, "has closed its connection: it died, or left the cluster")
        except Exception as error:
            self._lose(rank, f"sent what cannot be read: {error}")
        finally:
            self._silent[rank].set()

    async def _read_piece(self, rank: int, comm: Comm, size: int, body: Any) -> None:
        """Read what follows a message where it belongs, once the task's thread has said where that is."""
        self._reading.add(rank)
        place = await self._places[rank].get()
        if place is None:
            self._places[rank].put_nowait(None)
            place = memoryview(bytearray(size))
        if body is None:
            await _stream_of(comm).read_into(place)
        else:
            place[:] = _unpacked(body)
        self._reading.discard(rank)

    def _lose(self, rank: int, why: str) -> None:
        if not self._closed:
            self.inbox.put(WorkerLost(f"{self.name_of(rank)} {why}", rank, self.addresses[rank]))

    async def _write(self, rank: int, message: Any) -> None:
        comm = await self._comms[rank]
        with suppress(OSError):  # the reader of the same stream says that it is closed
            async with self._writing[rank]:
                await comm.write(message)

    async def _write_piece(self, rank: int, header: bytes, piece: memoryview) -> None:
        comm = await self._comms[rank]
        with suppress(OSError):
            async with self._writing[rank]:
                stream = _stream_of(comm)
                await comm.write(["piece", rank, [header, len(piece), None if stream else _packed(piece)]])
                if stream:
                    await stream.write(piece)

    async def _watch(self) -> None:
        """Look whether the task is still wanted: a thread cannot be stopped from outside."""
        while not self._closed:
            await asyncio.sleep(WATCH)
            task = self.worker.state.tasks.get(self._key)
            if self.worker.status not in (Status.running, Status.paused, Status.closing_gracefully):
                self._stop(
                    WorkerLost(f"{self.name_of(self.rank)} is leaving the cluster", self.rank, self.worker.address)
                )
            elif task is None or task.state not in ("executing", "long-running"):
                self._stop(Unwanted("the fit was cancelled, or its client has left"))

    def _stop(self, why: BaseException) -> None:
        """Let this rank stop: in a call of the engine, or where it waits for others."""
        self.stop.wanted = True
        self.inbox.put(why)

    def _spawn(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, messages: Iterable[tuple[int, Sequence[Any]]]) -> None:
        for rank, parts in messages:
            self._spawn(self._write(rank, ["data", rank, [_packed(part) for part in parts]]))

    def _send_pieces(self, header: bytes, pieces: Iterable[tuple[int, memoryview]]) -> None:
        for rank, piece in pieces:
            self._spawn(self._write_piece(rank, header, piece))

    def _expect(self, rank: int, places: Iterable[memoryview]) -> None:
        for place in places:
            self._places[rank].put_nowait(place)

    def _leave(self) -> None:
        """Keep no memory for pieces that come late."""
        for places in self._places.values():
            while not places.empty():
                places.get_nowait()
            places.put_nowait(None)

    def _close(self) -> None:
        """Forget the session on its worker; streams that are open are closed."""
        if self._closed:
            return
        self._closed = True
        self._unused.cancel()
        self.worker.extensions.pop(PREFIX + self.name, None)
        self.worker.handlers.pop(PREFIX + self.name, None)
        for task in self._tasks:
            task.cancel()
        self._leave()
        for comm in self._comms.values():
            if comm.done() and not comm.cancelled():
                comm.result().abort()
            comm.cancel()

    async def _end(self, last: Any) -> None:
        """Say a last word to all ranks that can be reached, and close."""
        open_ends = [rank for rank, comm in self._comms.items() if comm.done()]
        self._gone.update(open_ends)  # what they do from now on does not matter
        sending = {rank for rank in open_ends if rank in self._reading or not self._places[rank].empty()} - {last[1]}
        self._leave()

        async def part(rank: int) -> None:
            await self._write(rank, last)
            if rank in sending:  # a stream that closes on what it has not read may lose what it has sent
                await self._silent[rank].wait()
            await self._comms[rank].result().close()

        with suppress(TimeoutError):  # a rank that hangs does not read
            await asyncio.wait_for(asyncio.gather(*map(part, open_ends)), LAST_WORD)
        self._close()

    # --- in the task's thread -------------------------------------------------------------------------------------

    def name_of(self, rank: int) -> str:
        """Return what errors call a rank."""
        return f"worker {self.addresses[rank]} (rank {rank})"

    def start(self, key: Any) -> None:
        """Begin: `key` is that of the task, whose thread calls this."""
        self._call(self._start(key))

    def send(self, messages: Iterable[tuple[int, Sequence[Any]]]) -> None:
        """Send ranks messages, each of some buffers; nothing waits for them to arrive.

        Large buffers are not copied, and must not change before the rank has read them.
        """
        self.loop.call_soon_threadsafe(self._send, messages)

    def send_pieces(self, header: bytes, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Send ranks pieces of memory, which must not change before the rank has read them."""
        self.loop.call_soon_threadsafe(self._send_pieces, header, pieces)

    def expect(self, rank: int, places: Iterable[memoryview]) -> None:
        """Say where the next pieces that a rank sends belong, in their order.

        Each comes with two messages of its header: before it is read, and when it is there.
        """
        self.loop.call_soon_threadsafe(self._expect, rank, places)

    def receive(self, ranks: Iterable[int]) -> dict[int, list[Any]]:
        """Return what each of these ranks has sent next, by rank; errors are those of :meth:`take`."""
        missing, found = set(ranks), dict[int, list[Any]]()
        while missing:
            rank, parts = self.take(missing)
            found[rank] = parts
            missing.remove(rank)
        return found

    def take(self, ranks: Collection[int]) -> Message:
        """Return the next message of one of these ranks, whichever comes first.

        Raises
        ------
        WorkerLost
            If a rank is lost, or all of them have sent nothing within the timeout.
        CommunicationError
            If a rank has failed.
        Unwanted
            If nobody waits for the result any more.
        """
        for rank in ranks:
            if self._early[rank]:
                return self._early[rank].popleft()
        waited = 0.0
        while True:
            piece = min(WATCH, self.timeout - waited)
            try:
                message = self.inbox.get(timeout=max(0, piece))
            except queue.Empty:
                waited += piece
                if waited < self.timeout:
                    continue
                raise self._late(min(ranks)) from None
            if isinstance(message, BaseException):
                raise message
            if message.rank in ranks:
                return message
            self._early[message.rank].append(message)

    def _late(self, rank: int) -> WorkerLost:
        if rank in self._gone:
            what = "has ended the fit before the others"
        elif self.has_begun:
            what = f"sent nothing for {self.timeout:g} s: it hangs, or is much slower than the others"
        else:
            what = f"did not begin within {self.timeout:g} s: are all its threads busy with other tasks?"
        return WorkerLost(f"{self.name_of(rank)} {what}", rank, self.addresses[rank])

    def end(self, last: tuple[str, int, Any]) -> None:
        """Say a last word, and leave the fit."""
        if not self._closed:
            self._call(self._end(last))

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(self.timeout + 2 * LAST_WORD)


def _packed(part: Any) -> Any:
    """Return a buffer as it goes into a message."""
    return bytes(part) if len(part) <= INLINE else Serialized({}, [part])


def _unpacked(part: Any) -> Any:
    """Return a buffer of a message."""
    return part.frames[0] if isinstance(part, Serialized) else part


def _stream_of(comm: Comm) -> Any:
    """Return the stream of bytes of a comm over TCP or TLS, which can fill memory of the caller's; or None."""
    return getattr(comm, "stream", None)


def of(worker: Worker, name: str) -> Session:
    """Return the session of a fit on this worker."""
    found = worker.extensions.get(PREFIX + name)
    if found is None:
        raise Unwanted("the fit has ended before this task began")
    return found


def close(name: str, dask_worker: Worker) -> None:
    """Let what is left of a fit on a worker end."""
    session: Session | None = dask_worker.extensions.get(PREFIX + name)
    if session is not None:
        session._stop(Unwanted("the fit has ended"))
        if session._key is None:
            session._close()
