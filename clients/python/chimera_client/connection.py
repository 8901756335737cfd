"""One DEALER socket to one endpoint: frames, timeouts, and events sorted by request id."""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from typing import Any

import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

from .errors import ChimeraError, DeadlineExceeded, InvalidArgument, PermissionDenied, Unavailable, from_event

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


@dataclasses.dataclass(frozen=True)
class Keys:
    """A client's pair and the public key of its daemon, as Z85."""

    public: bytes
    secret: bytes
    server: bytes


def read_keys(key: str | None, server_key: str | None) -> Keys | None:
    """From ZeroMQ certificates, as `chimera key new` writes them; None without files."""
    if not key and not server_key:
        return None
    if not key or not server_key:
        raise InvalidArgument("keys: one of key and server_key alone (expected both or none)",
                              "set CHIMERA_KEY and CHIMERA_SERVER_KEY, or give both")
    try:
        public, secret = zmq.auth.load_certificate(key)
        server, _ = zmq.auth.load_certificate(server_key)
    except (OSError, ValueError) as problem:
        raise InvalidArgument(f"keys: {problem}", "`chimera key new` writes certificates") from None
    if secret is None:
        raise InvalidArgument(f"{key}: a public certificate (expected the secret one)",
                              "name the .key file")
    return Keys(public, secret, server)


class Connection:
    """Not thread-safe: use one per thread."""

    def __init__(self, context: zmq.Context, endpoint: str, connect_timeout: float,
                 keys: Keys | None = None) -> None:
        self.endpoint = endpoint
        # An ipc socket tells the daemon the user; keys are for connections that tell nothing.
        self._keys = keys if endpoint.startswith("tcp://") else None
        self._refused = False
        self._context = context
        self._connect_timeout = connect_timeout
        self._waiting: dict[str | None, collections.deque[Event]] = {}
        self._live: set[str] = set()
        self._lost: set[str | None] = set()  # were waited for when their connection ended
        self._open()

    def _open(self) -> None:
        # Whether a daemon is there is asked of the monitor and not of IMMEDIATE: with that, libzmq
        # drops what came last when it is read together with the end of the connection.
        self._connected = False
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDTIMEO, int(self._connect_timeout * 1000))
        # Without a mark. Where one is reached, libzmq 4.3.4 reads no more, and ends the process when
        # the connection breaks meanwhile, by an assertion. What can pile up is what was asked for.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        if self._keys is not None:
            self._socket.curve_publickey = self._keys.public
            self._socket.curve_secretkey = self._keys.secret
            self._socket.curve_serverkey = self._keys.server
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.connect(self.endpoint)

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
        self._wait_connected()
        try:
            self._socket.send_multipart(frames, copy=True)
        except zmq.Again:
            raise self._unreachable() from None

    def _unreachable(self) -> Unavailable:
        return Unavailable(f"daemon: no answer at {self.endpoint}",
                           "start it with: chimerad --config FILE")

    def _wait_connected(self) -> None:
        deadline = time.monotonic() + self._connect_timeout
        while True:
            # A connection that was lost since the last call is noticed here as well.
            while not self._refused and self._monitor.poll(0):
                self._take_monitor_event()
            if self._refused:
                self._refused = False  # the next try begins anew
                self.close()
                self._open()
                raise PermissionDenied(f"daemon: {self.endpoint} refuses this client",
                                       "is it in the daemon's clients file, and not expired?")
            if self._connected:
                return
            left = int(max(0.0, deadline - time.monotonic()) * 1000)
            if not self._monitor.poll(left):
                raise self._unreachable()

    def _take_monitor_event(self) -> None:
        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected = True
            self._lost.discard(None)
            return
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = True
            return
        while self._take():  # what was sent before the connection ended still counts
            pass
        self._lost |= self._live | {None}
        # A new socket: what was sent through the old one is not for the next daemon.
        self.close()
        self._open()

    def receive(self, request_id: str | None, timeout: float | None) -> Event:
        """The next event of a request; `error` events are raised. None: events without an id."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._waiting.get(request_id):
            self._wait(request_id, deadline)
        event = self._waiting[request_id].popleft()
        if event.final and request_id is not None:
            self.forget(request_id)
        if event.kind == "error":
            raise from_event(event.body)
        return event

    def forget(self, request_id: str | None) -> None:
        """Drops the events of a request nobody waits for any more."""
        if request_id is not None:
            self._live.discard(request_id)
        self._lost.discard(request_id)
        self._waiting.pop(request_id, None)

    def _wait(self, request_id: str | None, deadline: float | None) -> None:
        if request_id in self._lost:
            self.forget(request_id)
            raise Unavailable(f"daemon: connection to {self.endpoint} was lost",
                              "look at its log; is it still running?")
        left = None if deadline is None else int(max(0.0, deadline - time.monotonic()) * 1000)
        ready = dict(self._poller.poll(left))
        if self._socket in ready:
            while self._take():
                pass
            return
        if self._monitor in ready:
            self._take_monitor_event()
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
