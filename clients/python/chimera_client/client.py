"""Blocking and streaming calls of the Chimera daemon."""

from __future__ import annotations

import array
import dataclasses
import itertools
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import zmq

from .connection import Connection, Event, read_keys
from .errors import ChimeraError

# Lists of logits come as a NumPy array where NumPy is installed, else as array('f').
try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

_SERVE_CALLS = frozenset(
    ("generate", "chat", "score", "embed", "tokenize", "detokenize", "cancel", "info", "health"))


def _runtime_dir() -> str:
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{xdg}/chimera" if xdg.startswith("/") else f"/tmp/chimera-{os.getuid()}"


def default_serve_endpoint() -> str:
    return f"ipc://{_runtime_dir()}/serve.sock"


def default_control_endpoint() -> str:
    return f"ipc://{_runtime_dir()}/control.sock"


@dataclasses.dataclass(frozen=True)
class Token:
    """One generated token. `text` may be empty while a character is incomplete."""

    text: str
    token: int
    epoch: int
    logprob: float | None = None
    # The most likely tokens at this place with `top_logprobs`, best first: token, logprob, text.
    top_logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    # With `shares`: the fraction of the gates' mass that each module had where it was drawn from.
    shares: dict[str, float] = dataclasses.field(default_factory=dict)


class Generation(Iterator[Token]):
    """The tokens of one request as they arrive; `done` holds the final event afterwards."""

    def __init__(self, connection: Connection, request_id: str, timeout: float | None,
                 cancel: Any) -> None:
        self.id = request_id
        self.done: dict[str, Any] | None = None
        self._connection = connection
        self._timeout = timeout
        self._cancel = cancel
        self._ended = False

    def __next__(self) -> Token:
        if self._ended:
            raise StopIteration
        try:
            event = self._connection.receive(self.id, self._timeout)
        except ChimeraError:
            self._ended = True
            raise
        if event.final:
            self._ended = True
            self.done = event.body
            raise StopIteration
        body = event.body
        return Token(body["text"], body["token"], body["epoch"], body.get("logprob"),
                     body.get("top_logprobs", []), body.get("shares", {}))

    def cancel(self) -> None:
        """Asks the daemon to end the request; keep iterating until it has."""
        if not self._ended:
            self._cancel(self.id)

    def text(self) -> str:
        """Waits for the end and returns the text of the remaining tokens."""
        return "".join(token.text for token in self)


@dataclasses.dataclass(frozen=True)
class Score:
    """Answer of `score`. `logits` is row-major [shape[0], shape[1]] when asked for."""

    bits_per_byte: float | None
    nats: float
    count: int
    logprobs: list[float]
    provenance: dict[str, Any]
    routing: dict[str, Any] | None
    shape: tuple[int, int] | None
    logits: Any  # numpy.ndarray [n_tokens, vocab], or array('f') of the same values, or None
    done: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Answer of `embed`."""

    embedding: list[float]  # as many as the model is wide; none when it ended before its time
    finish_reason: str  # "embedded"
    provenance: dict[str, Any]
    done: dict[str, Any]


def _logits(event: Event) -> tuple[tuple[int, int] | None, Any]:
    described = event.body.get("logits")
    if described is None:
        return None, None
    rows, columns = described["shape"]
    if len(event.frames) != 1 or len(event.frames[0]) != rows * columns * 4:
        raise ChimeraError("logits: binary frame does not have the announced size")
    if numpy is not None:
        return (rows, columns), numpy.frombuffer(event.frames[0], dtype="<f4").reshape(rows, columns)
    values = array.array("f")
    values.frombytes(event.frames[0])
    if sys.byteorder != "little":
        values.byteswap()
    return (rows, columns), values


def receipt_text(done: dict[str, Any]) -> str:
    """The receipt in a `done`, if it was asked for with `receipt=True`, as `chimera receipt verify`
    takes it from a file: canonical JSON (RFC 8785)."""
    return json.dumps(done["receipt"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Client:
    """A client of one daemon. Not thread-safe: use one per thread.

    serve, control: endpoints; by default where `chimerad` listens for this user.
    timeout: seconds to wait for each answer (None: for ever).
    connect_timeout: seconds until a daemon that is not there counts as unavailable.
    key, server_key: files of this client's secret and of the daemon's public key, for tcp://
    endpoints; by default what CHIMERA_KEY and CHIMERA_SERVER_KEY name.
    """

    def __init__(self, serve: str | None = None, control: str | None = None, *,
                 timeout: float | None = 60.0, connect_timeout: float = 2.0,
                 key: str | os.PathLike[str] | None = None,
                 server_key: str | os.PathLike[str] | None = None,
                 context: zmq.Context | None = None) -> None:
        self._keys = read_keys(_file(key, "CHIMERA_KEY"), _file(server_key, "CHIMERA_SERVER_KEY"))
        self._owns_context = context is None
        self._context = context or zmq.Context()
        self._endpoints = {True: serve or default_serve_endpoint(),
                           False: control or default_control_endpoint()}
        self._connections: dict[bool, Connection] = {}
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        # Another one for each client: a canary takes its part of the requests by their ids.
        self._mark = secrets.token_hex(4)
        self._ids = itertools.count(1)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._owns_context:
            self._context.term()

    def connection(self, call: str) -> Connection:
        """The connection that carries `call`; opened at its first use."""
        serve = call in _SERVE_CALLS
        if serve not in self._connections:
            self._connections[serve] = Connection(self._context, self._endpoints[serve],
                                                  self._connect_timeout, self._keys)
        return self._connections[serve]

    def _new_id(self) -> str:
        return f"py{self._mark}-{next(self._ids)}"

    def send(self, call: str, *, id: str | None = None, **fields: Any) -> str:
        """Sends a request without waiting and returns its id; `None` fields are left out."""
        request_id = id if id is not None else self._new_id()
        body = {"id": request_id, "call": call}
        body.update((name, value) for name, value in fields.items() if value is not None)
        self.connection(call).send(request_id, body)
        return request_id

    def receive(self, call: str, request_id: str | None, timeout: float | None = None) -> Event:
        """The next event of a request sent with `send`; raises its `error`."""
        return self.connection(call).receive(request_id, timeout or self._timeout)

    def call(self, call: str, *, timeout: float | None = None, **fields: Any) -> dict[str, Any]:
        """Sends a request and waits for its `done`."""
        return self._finish(call, self.send(call, **fields), timeout).body

    def _finish(self, call: str, request_id: str, timeout: float | None) -> Event:
        while True:
            event = self.receive(call, request_id, timeout)
            if event.final:
                return event

    # Serve calls.

    def generate(self, prompt: str | None = None, *, tokens: Sequence[int] | None = None,
                 timeout: float | None = None, **options: Any) -> Generation:
        """Streams a generation. Options are the fields of `generate` (clients/PROTOCOL.md)."""
        request_id = self.send("generate", prompt=prompt, tokens=_list(tokens), **options)
        return Generation(self.connection("generate"), request_id, timeout or self._timeout,
                          self.cancel)

    def complete(self, prompt: str | None = None, *, tokens: Sequence[int] | None = None,
                 timeout: float | None = None, **options: Any) -> dict[str, Any]:
        """Generates without streaming: the whole `done` with `text` and `tokens`."""
        return self.call("generate", prompt=prompt, tokens=_list(tokens), stream=False,
                         timeout=timeout, **options)

    def chat(self, messages: Sequence[dict[str, Any]], *,
             tools: Sequence[dict[str, Any]] | None = None,
             documents: Sequence[dict[str, Any]] | None = None,
             add_generation_prompt: bool | None = None,
             chat_template_kwargs: dict[str, Any] | None = None, timeout: float | None = None,
             **options: Any) -> Generation:
        """Streams the answer to a conversation. Options are those of `generate`."""
        request_id = self.send("chat", messages=list(messages), tools=tools, documents=documents,
                               add_generation_prompt=add_generation_prompt,
                               chat_template_kwargs=chat_template_kwargs, **options)
        return Generation(self.connection("chat"), request_id, timeout or self._timeout,
                          self.cancel)

    def render_chat(self, messages: Sequence[dict[str, Any]], **fields: Any) -> tuple[str, list[int]]:
        """Text and tokens that `chat` would continue, given the same conversation."""
        done = self.call("tokenize", messages=list(messages), **fields)
        return done["text"], done["tokens"]

    def score(self, text: str | None = None, *, tokens: Sequence[int] | None = None,
              logits: bool = False, routing: bool = False, timeout: float | None = None,
              **options: Any) -> Score:
        request_id = self.send("score", text=text, tokens=_list(tokens), logits=logits,
                               routing=routing, **options)
        event = self._finish("score", request_id, timeout)
        body = event.body
        shape, values = _logits(event)
        return Score(body["bits_per_byte"], body["nats"], body["count"], body["logprobs"],
                     body["provenance"], body.get("routing"), shape, values, body)

    def embed(self, text: str | None = None, *, tokens: Sequence[int] | None = None,
              pooling: str | None = None, normalize: bool | None = None,
              timeout: float | None = None, **options: Any) -> Embedding:
        """A text as a vector: the output of the backbone's final norm, the "mean" over all tokens or
        that of the "last" one, of length 1 unless `normalize` is False."""
        body = self.call("embed", text=text, tokens=_list(tokens), pooling=pooling,
                         normalize=normalize, timeout=timeout, **options)
        return Embedding(body["embedding"], body["finish_reason"], body["provenance"], body)

    def tokenize(self, text: str, *, add_special: bool = False,
                 match_special: bool = False) -> list[int]:
        """Ids of `text`, as `generate` and `score` read it. With `match_special`, special tokens
        spelled in it become those tokens: only for texts that nobody else wrote."""
        return self.call("tokenize", text=text, add_special=add_special,
                         match_special=match_special)["tokens"]

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        return self.call("detokenize", tokens=list(tokens), skip_special=skip_special)["text"]

    def cancel(self, target: str) -> bool:
        """Ends the request `target` of this client; False when it was not in progress."""
        return bool(self.call("cancel", target=target)["cancelled"])

    def info(self) -> dict[str, Any]:
        return self.call("info")

    def health(self) -> dict[str, Any]:
        return self.call("health")

    # Control calls. Changes return once the new routing table is published.

    def modules(self) -> list[dict[str, Any]]:
        return self.call("modules")["modules"]

    def load(self, path: str | os.PathLike[str], *, name: str | None = None,
             enabled: bool | None = None, bias: float | None = None, precision: str | None = None,
             weight: float | None = None,
             in_flight: str | None = None, canary: float | None = None,
             timeout: float | None = None, **waiting: Any) -> dict[str, Any]:
        """Loads a module directory, or swaps the module of the same name.

        With `canary` only this part of the new requests gets it, until `promote`. `precision`: in which
        its experts are kept (f32, bf16, q8, q4); else as before, or as its manifest or the deployment says. `weight`: of
        a bundle, beside others.

        So do `apply` and `rollback`, this takes further: `wait=False` answers at once with the `job`
        (see `jobs`, `cancel_any`), `detach=True` lets it go on when this client goes away, and
        `on_progress` is called with the job as it comes along.
        """
        return self._load("load", timeout, path=os.path.abspath(path), name=name, enabled=enabled,
                          bias=bias, precision=precision, weight=weight, in_flight=in_flight, canary=canary, **waiting)

    def _load(self, call: str, timeout: float | None, *, wait: bool | None = None,
              detach: bool | None = None,
              on_progress: Callable[[dict[str, Any]], None] | None = None,
              **fields: Any) -> dict[str, Any]:
        request_id = self.send(call, wait=wait, detach=detach,
                               progress=None if on_progress is None else True, **fields)
        while True:
            event = self.receive(call, request_id, timeout)
            if event.final:
                return event.body
            if on_progress is not None:
                on_progress(event.body["job"])

    def jobs(self) -> list[dict[str, Any]]:
        """The last loads that ended, oldest first, and those in progress."""
        return self.call("modules")["jobs"]

    def unload(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        return self.call("unload", name=name, timeout=timeout)

    def revoke(self, name: str, *, proof: bool | None = None,
               timeout: float | None = None) -> dict[str, Any]:
        """Takes a module out of every stream at once; with `proof`, the answer has a signed `proof`
        of what became of it."""
        return self.call("revoke", name=name, proof=proof, timeout=timeout)

    def enable(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Uses a module that is loaded and disabled."""
        return self.call("enable", name=name, timeout=timeout)

    def disable(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Keeps a module loaded without using it: the outputs are those without it."""
        return self.call("disable", name=name, timeout=timeout)

    def bias(self, name: str, value: float) -> dict[str, Any]:
        return self.call("bias", name=name, value=value)

    def blend(self, name: str, parents: dict[str, float], *, in_flight: str | None = None,
              timeout: float | None = None, **waiting: Any) -> dict[str, Any]:
        """Sets the coefficients of an assembly's parents, by their names (see `modules`).

        Those that are not named keep theirs, the base has what is missing to 1.
        """
        return self._load("blend", timeout, name=name, **{"lambda": parents}, in_flight=in_flight,
                          **waiting)

    def canary(self) -> dict[str, Any]:
        """`canary`: what a part of the new requests tries, if there is one; `last`: the one before."""
        return self.call("canary")

    def promote(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Makes what the canary tries the current composition."""
        return self.call("promote", timeout=timeout)

    def abort(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Takes the canary away; its streams go on on the current epoch."""
        return self.call("abort", timeout=timeout)

    def plan(self, composition: dict[str, Any] | None = None, *,
             deployment: dict[str, Any] | None = None,
             directory: str | os.PathLike[str] | None = None,
             probe: bool | None = None, timeout: float | None = None) -> dict[str, Any]:
        """What `apply` would change, need and refuse, by manifests and headers; `probe` loads all.

        Either a composition, whose module paths must be absolute, or a whole deployment and the
        directory where its relative paths start.
        """
        return self.call("plan", composition=composition, deployment=deployment,
                         directory=_path(directory), probe=probe, timeout=timeout)

    def apply(self, composition: dict[str, Any] | None = None, *,
              deployment: dict[str, Any] | None = None,
              directory: str | os.PathLike[str] | None = None, in_flight: str | None = None,
              timeout: float | None = None, **waiting: Any) -> dict[str, Any]:
        """Makes a composition the current one; of a deployment `needs_restart` tells the rest."""
        return self._load("apply", timeout, composition=composition, deployment=deployment,
                          directory=_path(directory), in_flight=in_flight, **waiting)

    def rollback(self, epoch: int | None = None, *, timeout: float | None = None,
                 **waiting: Any) -> dict[str, Any]:
        return self._load("rollback", timeout, epoch=epoch, **waiting)

    def epochs(self) -> dict[str, Any]:
        return self.call("epochs")

    def routing(self, layer: int | None = None, *, reset: bool | None = None) -> dict[str, Any]:
        """Where tokens went since `since`; `reset` begins to count anew after this answer."""
        return self.call("routing", layer=layer, reset=reset)

    def requests(self) -> list[dict[str, Any]]:
        """The requests in progress, of all clients: id, call, endpoint, seconds."""
        return self.call("requests")["requests"]

    def cancel_any(self, target: str) -> int:
        """Ends the serve requests of the id `target`, whoever sent them, or the job; how many."""
        request_id = self._new_id()
        control = self.connection("stats")  # `cancel` alone would go to the serve endpoint
        control.send(request_id, {"id": request_id, "call": "cancel", "target": target})
        return int(self.receive("stats", request_id).body["cancelled"])

    def stats(self) -> dict[str, Any]:
        return self.call("stats")

    def audit(self, since: int | None = None, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Who asked for what, oldest first: the newest `limit` entries since then (Unix time)."""
        return self.call("audit", since=since, limit=limit)["entries"]

    def usage(self, since: int | None = None, *, limit: int | None = None) -> list[dict[str, Any]]:
        """What clients took of modules, by the hour: all hours that end after `since` (Unix time)."""
        return self.call("usage", since=since, limit=limit)["rows"]

    def drain(self, timeout_ms: int | None = None) -> bool:
        """Refuses new requests; True when all live ones ended in time."""
        wait = None if timeout_ms is None else timeout_ms / 1000 + 10
        return bool(self.call("drain", timeout_ms=timeout_ms, timeout=wait)["drained"])

    def shutdown(self) -> None:
        self.call("shutdown")


def _file(path: str | os.PathLike[str] | None, variable: str) -> str | None:
    return os.environ.get(variable) if path is None else os.fspath(path)


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.path.abspath(path)


def _list(tokens: Sequence[int] | None) -> list[int] | None:
    return None if tokens is None else [int(token) for token in tokens]
