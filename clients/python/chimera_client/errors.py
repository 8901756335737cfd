"""Errors of the Chimera client: one class per status code of the wire protocol."""

from __future__ import annotations

from typing import Any


class ChimeraError(Exception):
    """An `error` event of the daemon, or a failure to reach it.

    code: status code on the wire, e.g. "invalid_argument".
    message: what was wrong. hint: the next step; may be empty.
    """

    code = "internal"

    def __init__(self, message: str, hint: str = "", code: str | None = None) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class InvalidArgument(ChimeraError):
    code = "invalid_argument"


class NotFound(ChimeraError):
    code = "not_found"


class AlreadyExists(ChimeraError):
    code = "already_exists"


class FailedPrecondition(ChimeraError):
    code = "failed_precondition"


class PermissionDenied(ChimeraError):
    code = "permission_denied"


class ResourceExhausted(ChimeraError):
    code = "resource_exhausted"


class DeadlineExceeded(ChimeraError):
    code = "deadline_exceeded"


class Cancelled(ChimeraError):
    code = "cancelled"


class DataCorrupt(ChimeraError):
    code = "data_corrupt"


class Unavailable(ChimeraError):
    code = "unavailable"


class Unimplemented(ChimeraError):
    code = "unimplemented"


class Internal(ChimeraError):
    code = "internal"


_BY_CODE: dict[str, type[ChimeraError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, PermissionDenied,
        ResourceExhausted, DeadlineExceeded, Cancelled, DataCorrupt, Unavailable, Unimplemented,
        Internal,
    )
}


def from_event(event: dict[str, Any]) -> ChimeraError:
    """The exception for an `error` event; unknown codes become a plain ChimeraError."""
    code = str(event.get("code", "internal"))
    kind = _BY_CODE.get(code, ChimeraError)
    return kind(str(event.get("message", "")), str(event.get("hint", "")), code)
