"""References in place of large payloads."""

import hashlib

import pytest

from millrace_core.limits import PAYLOAD_INLINE_BYTES_MAX
from millrace_core.payloads import digest_in, is_large, reference_to


def test_only_what_is_over_the_bound_is_large() -> None:
    assert not is_large(b"x" * PAYLOAD_INLINE_BYTES_MAX)
    assert is_large(b"x" * (PAYLOAD_INLINE_BYTES_MAX + 1))


def test_a_reference_tells_size_and_digest() -> None:
    payload = b'"' + b"x" * 70_000 + b'"'
    reference = reference_to(payload)
    assert int.from_bytes(reference[1:5], "big") == 70_002
    assert digest_in(reference) == hashlib.sha256(payload).digest()
    assert reference_to(payload) == reference


@pytest.mark.parametrize("column", [None, b"", b"{}", b"\0", b"\0" * 36, b"\0" * 38, b'"' + b"x" * 35 + b'"'], ids=repr)
def test_everything_else_is_the_payload_itself(column: bytes | None) -> None:
    assert digest_in(column) is None
