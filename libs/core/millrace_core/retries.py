"""How long a step waits before its next attempt: backoff with jitter that comes out the same on every repeat.

Jitter keeps a thousand runs that failed together from coming back together. It is derived from the run, the node and
the attempt, never drawn: a crash that decides the same failure again names the same moment.
"""

import hashlib

from millrace_core import limits
from millrace_core.plans import RetryPolicy

_UNIT = 2**32


def delay_ms(policy: RetryPolicy, *, attempt: int, seed: str) -> int:
    """The wait after failed attempt `attempt` (the first is 1): `initial_s`, doubled for each further failure unless
    fixed, at most `max_s`, then up to RETRY_JITTER more or less. `seed` names the attempt."""
    wait_s = policy.initial_s
    if policy.backoff == "exponential":
        # 2**20 times the shortest wait is over any max_s; the bound keeps the power small whatever a caller asks.
        wait_s *= 2 ** min(attempt - 1, limits.STEP_ATTEMPTS_MAX)
    return round(min(wait_s, policy.max_s) * 1000 * (1 + limits.RETRY_JITTER * _spread(seed)))


def may_retry(policy: RetryPolicy, *, attempt: int, retryable: bool) -> bool:
    """Whether another attempt follows failed attempt `attempt`."""
    return retryable and attempt < policy.attempts


def _spread(seed: str) -> float:
    """A number in [-1, 1) that is the same for the same seed."""
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") / _UNIT * 2 - 1
