"""Identity: time-ordered ids behind a type prefix, and derived ids that come out the same on every repeat.

A random id is a UUIDv7. A derived id is a UUIDv8: 48 bits of the origin's time in milliseconds, then SHA-256 of its
parts, so a row's day follows from its id alone and a repeat of the same work names the same thing.
Written form: prefix, underscore, 32 hexadecimal digits (`evt_0190…`).
"""

import hashlib
import uuid

import uuid_utils

from millrace_core.errors import Reject

EVENT = "evt"
RUN = "exec"
DELIVERY = "dlv"
TIMER = "tmr"
ACCOUNT = "acc"
KEY = "key"
PERSON = "usr"
SUBSCRIPTION = "sub"
JOB = "job"
CHAIN = "chn"
WORKFLOW = "wf"
ENDPOINT = "we"
CREDENTIAL = "cred"
INTEGRATION = "int"
REQUEST = "req"
REPLAY = "rpl"
FORM = "form"
SUBMISSION = "sbm"
CONNECTION = "con"
ACTION = "act"
CONFIRMATION = "cnf"
AUDIT = "aud"

# One run has one id; the surfaces show it under their own prefix and accept any of them.
RUN_PREFIXES = frozenset({"exec", "wfr", "task"})


def new_id(prefix: str) -> str:
    """A fresh time-ordered id. Never call it on a path that may be repeated: derive the id there."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def derived_id(prefix: str, time_ms: int, *parts: str) -> str:
    """The id that the same parts and origin time always give (UUIDv8). Safe to repeat by construction."""
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).digest()
    raw = bytearray((time_ms & 0xFFFFFFFFFFFF).to_bytes(6, "big") + digest[:10])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return f"{prefix}_{raw.hex()}"


def uuid_of(prefixed: str) -> uuid.UUID:
    """The UUID behind a prefixed id, as Postgres stores it. Raises Reject when it is not one."""
    tail = prefixed.rpartition("_")[2]
    if len(tail) != 32:
        raise Reject(f"{prefixed!r} is not an id: expected a prefix, an underscore and 32 hexadecimal digits")
    try:
        return uuid.UUID(hex=tail)
    except ValueError:
        raise Reject(f"{prefixed!r} is not an id: expected a prefix, an underscore and 32 hexadecimal digits") from None


def prefixed(prefix: str, value: uuid.UUID) -> str:
    """The written form of a stored UUID."""
    return f"{prefix}_{value.hex}"


def time_ms_of(prefixed_id: str) -> int:
    """The milliseconds since 1970 that an id carries in its first 48 bits. Raises Reject when it is no id."""
    tail = prefixed_id.rpartition("_")[2]
    try:
        raw = bytes.fromhex(tail)  # a third of what a UUID costs, and every derived id comes by here
    except ValueError:
        raw = b""
    return int.from_bytes(raw[:6], "big") if len(raw) == 16 and len(tail) == 32 else uuid_of(prefixed_id).int >> 80


DAY_MS = 86_400_000


def event_id_of_unique_key(account: str, identifier: str, ordering_key: str, unique_key: str, now_ms: int) -> str:
    """The id every event with this uniqueKey gets on this UTC day; its time is the day's start."""
    day_ms = now_ms - now_ms % DAY_MS
    return derived_id(EVENT, day_ms, "event", account, identifier, ordering_key, unique_key, str(day_ms // DAY_MS))


def run_id_of(event: str, subscription: str, replay: str = "") -> str:
    """run = f(event, subscription); a replay's id is part of it so that a replay starts anew."""
    return derived_id(RUN, time_ms_of(event), "run", event, subscription, replay)


def delivery_id_of(source: str, endpoint: str, replay: str = "") -> str:
    """delivery = f(source, endpoint). The source is the id of the event (or run) that asked for it."""
    return derived_id(DELIVERY, time_ms_of(source), "delivery", source, endpoint, replay)


def timer_id_of(owner: str, purpose: str, n: int) -> str:
    """timer = f(owner, purpose, n)."""
    return derived_id(TIMER, time_ms_of(owner), "timer", owner, purpose, str(n))
