"""From what came of one attempt to what happens next: the one place where that is decided.

Only 2xx is success. 410 ends the delivery at once; anything else, and no answer at all, is tried again by the
endpoint's schedule, later if the endpoint says so (`Retry-After`), until the schedule is used up:

    attempt     1     2      3      4       5       6      7      8       9
    wait after  5 s   30 s   2 min  10 min  30 min  2 h    6 h    24 h    (none: failed)

The wait is jittered by the delivery's own id, so that a burst that failed together does not come back together, and a
repeat of the same attempt decides the same. Pure. Not here: whether the attempt is made at all (`pausing`).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from millrace_core import limits
from millrace_core.messages import ErrorInfo

GONE = 410
# The receiver, or what stands before it, says that it has too much to do.
SLOW_DOWN = frozenset({429, 502, 504})


@dataclass(frozen=True, slots=True)
class Decision:
    """What the attempt's fact says. `retry_at` is set exactly when the outcome is `retrying`."""

    outcome: Literal["succeeded", "retrying", "failed"]
    error: ErrorInfo | None = None
    retry_at: int | None = None


SUCCEEDED = Decision("succeeded")


def of_status(
    status: int,
    *,
    delivery: str,
    attempt: int,
    now_ms: int,
    schedule_s: Sequence[float],
    retry_after: str | None = None,
) -> Decision:
    """What an answer means."""
    if 200 <= status < 300:
        return SUCCEEDED
    error = _error_of(status)
    if status == GONE:
        return Decision("failed", error)
    asked_s = retry_after_s(retry_after, now_ms=now_ms)
    return of_error(error, delivery=delivery, attempt=attempt, now_ms=now_ms, schedule_s=schedule_s, asked_s=asked_s)


def of_error(
    error: ErrorInfo,
    *,
    delivery: str,
    attempt: int,
    now_ms: int,
    schedule_s: Sequence[float],
    asked_s: float = 0.0,
) -> Decision:
    """What it means that no good answer came. `asked_s`: not before that many seconds."""
    if attempt > len(schedule_s):
        return Decision("failed", error)
    wait_s = max(schedule_s[attempt - 1] * _jitter(delivery, attempt), asked_s)
    return Decision("retrying", error, now_ms + int(wait_s * 1000))


def retry_after_s(written: str | None, *, now_ms: int) -> float:
    """The seconds a `Retry-After` header asks for, as a number or a date; bounded; 0 when it says nothing."""
    if written is None:
        return 0.0
    written = written.strip()
    if written.isascii() and written.isdigit():
        return min(float(written[:9]), limits.WEBHOOK_RETRY_AFTER_S_MAX)
    try:
        asked = parsedate_to_datetime(written).timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        return 0.0
    return min(max(asked, 0.0), limits.WEBHOOK_RETRY_AFTER_S_MAX)


def _jitter(delivery: str, attempt: int) -> float:
    """Between 1 - jitter and 1 + jitter, the same for the same attempt."""
    spread = zlib.crc32(f"{delivery}/{attempt}".encode("utf-8", "surrogatepass")) / 0xFFFFFFFF
    return 1.0 + limits.WEBHOOK_RETRY_JITTER * (2.0 * spread - 1.0)


def _error_of(status: int) -> ErrorInfo:
    if 300 <= status < 400:
        what = f"the endpoint answered {status}, a redirect, which is not followed: give its final URL"
    elif status == GONE:
        what = "the endpoint answered 410 Gone: it wants no more, so nothing is tried again, and it is disabled"
    else:
        what = f"the endpoint answered {status}: only 2xx counts as received"
    return ErrorInfo(code=f"http_{status}", message=what, retryable=status != GONE)
