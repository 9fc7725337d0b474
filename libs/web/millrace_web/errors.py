"""The one exception of every surface: status, code, message. What it looks like outside is the envelope's business.

A message says what is wrong, where, and what to do; it never holds a secret or what another account owns. Codes are
kept here as UPPER_CASE; a surface that writes them small does so in its envelope.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException

CODES: Mapping[int, str] = MappingProxyType(
    {
        400: "BAD_REQUEST",
        401: "UNAUTHORIZED",
        403: "FORBIDDEN",
        404: "NOT_FOUND",
        405: "METHOD_NOT_ALLOWED",
        409: "CONFLICT",
        410: "GONE",
        413: "PAYLOAD_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        422: "UNPROCESSABLE",
        429: "RATE_LIMITED",
        500: "INTERNAL_ERROR",
        503: "UNAVAILABLE",
    }
)
"""The code of a status where none is given."""


class ApiError(HTTPException):
    """Answer the request with this. Raise it anywhere below a surface; its envelope writes it out."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers) if headers else None)
        self.status = status
        self.message = message
        self.code = code or CODES.get(status, "ERROR")
        self.details = details


def invalid(message: str, *, details: Mapping[str, Any] | None = None) -> ApiError:
    """400 VALIDATION_ERROR: the request can be read, but not accepted."""
    return ApiError(400, message, code="VALIDATION_ERROR", details=details)


def not_found(what: str, id: str) -> ApiError:
    """404 for a thing that is not there, or is another account's: the two must look the same."""
    return ApiError(404, f"There is no {what} {id!r}.")


def unavailable(message: str, *, retry_after_s: int, code: str = "UNAVAILABLE") -> ApiError:
    """503 with `Retry-After`."""
    return ApiError(503, message, code=code, headers={"retry-after": str(retry_after_s)})
