"""Payloads that are too large for a row: each lies beside it, and the row holds a reference in its place.

A reference is a NUL, the payload's length in four bytes, big end first, and its SHA-256. JSON never begins with a NUL,
so one column holds either, and what is small costs nothing. What a reference names follows from the payload alone:
said again, it is the same. Not here: where payloads lie (`millrace_store.payloads`).
"""

import hashlib

from millrace_core import limits

_REFERENCE_BYTES = 1 + 4 + hashlib.sha256().digest_size
_MARK = b"\0"


def is_large(payload: bytes) -> bool:
    """Whether it lies beside its row."""
    return len(payload) > limits.PAYLOAD_INLINE_BYTES_MAX


def reference_to(payload: bytes) -> bytes:
    """What stands in the row of this payload."""
    return _MARK + len(payload).to_bytes(4, "big") + hashlib.sha256(payload).digest()


def digest_in(column: bytes | None) -> bytes | None:
    """The digest of the payload that a column refers to; None when it holds the payload itself, or none."""
    if column is None or len(column) != _REFERENCE_BYTES or column[:1] != _MARK:
        return None
    return column[5:]
