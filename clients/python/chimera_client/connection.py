"""One DEALER socket to one endpoint: frames, timeouts, and events sorted by request id."""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from typing import Any

import zmq

from .errors import ChimeraError, DeadlineExceeded, Unavailable, from_event

MAGIC = b"CHIMERA/1"


@dataclasses.dataclass
class Event:
    """One answer of the daemon: its JSON body and any binary frames."""

    body: dict[str, Any]
    frames: list[bytes]

    @property
    def kind(self) -> str:
        return str(self.body.get("event"))

    @property
    def final(self) -> bool:
        return self.kind in ("done", "error")


class Connection:
    """Not thread-safe: use one per thread."""

    def __init__(self, context: zmq.Context, endpoint: str, connect_timeout: float) -> None:
        self.endpoint = endpoint
        self._waiting: dict[str | None, collections.deque[Event]] = {}
        self._live: set[str] = set()
        self._gone = False
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Queue only on completed connections, so that a daemon that is not there is noticed.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        # Not a poll before sending: a daemon that dies between the two would block the send for ever.
        self._socket.setsockopt(zmq.SNDTIMEO, int(connect_timeout * 1000))
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.connect(endpoint)

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    def send(self, request_id: str, body: dict[str, Any]) -> None:
        """Sends a request. Unavailable when no daemon answers within the connect timeout."""
        self.send_frames([MAGIC, json.dumps(body, allow_nan=False).encode()])
        self._live.add(request_id)
        self._waiting.setdefault(request_id, collections.deque())

    def send_frames(self, frames: list[bytes]) -> None:
        """Sends raw frames, e.g. malformed ones in tests."""
        try:
            self._socket.send_multipart(frames, copy=True)
        except zmq.Again:
            raise Unavailable(f"daemon: no answer at {self.endpoint}",
                              "start it with: chimerad --config FILE") from None
        self._gone = False

    def receive(self, request_id: str | None, timeout: float | None) -> Event:
        """The next event of a request; `error` events are raised. None: events without an id."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._waiting.get(request_id):
            self._wait(request_id, deadline)
        event = self._waiting[request_id].popleft()
        if event.final and request_id is not None:
            self._live.discard(request_id)
            self._waiting.pop(request_id, None)
        if event.kind == "error":
            raise from_event(event.body)
        return event

    def forget(self, request_id: str) -> None:
        """Drops the events of a request nobody waits for any more."""
        self._live.discard(request_id)
        self._waiting.pop(request_id, None)

    def _wait(self, request_id: str | None, deadline: float | None) -> None:
        left = None if deadline is None else int(max(0.0, deadline - time.monotonic()) * 1000)
        ready = dict(self._poller.poll(left))
        if self._socket in ready:
            while self._take():
                pass
            return
        if self._monitor in ready:
            self._monitor.recv_multipart()
            self._gone = True
        if self._gone:
            raise Unavailable(f"daemon: connection to {self.endpoint} was lost",
                              "look at its log; is it still running?")
        if not ready:
            raise DeadlineExceeded(f"request {request_id!r}: no answer in time",
                                   "raise the timeout or look at chimera stats")

    def _take(self) -> bool:
        try:
            frames = self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return False
        if len(frames) < 2 or frames[0] != MAGIC:
            raise ChimeraError("answer: not a chimera/1 message", f"what listens at {self.endpoint}?")
        body = json.loads(frames[1])
        request_id = body.get("id")
        if request_id is None or request_id in self._live:
            queue = self._waiting.setdefault(request_id, collections.deque())
            queue.append(Event(body, frames[2:]))
        return True
