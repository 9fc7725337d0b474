"""`Idempotency-Key`: the header, what makes two requests the same, and how an answer that is given again says so.

Not here: what was answered (`millrace_store.idempotency`).
"""

import hashlib
from typing import Annotated, Final

from fastapi import Header, Request

from millrace_core import limits

REPLAYED: Final = "Idempotency-Replayed"

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=limits.IDEMPOTENCY_KEY_CHARS_MAX,
        description="Asked again with the same key and body within 24 hours, the first answer is given again "
        "(`Idempotency-Replayed: true`) and nothing is done; with another body it is 409 `IDEMPOTENCY_CONFLICT`.",
    ),
]


async def digest_of(request: Request) -> bytes:
    """The same for the same method, path, query and body."""
    parts = (request.method.encode(), request.url.path.encode(), request.url.query.encode(), await request.body())
    return hashlib.sha256(b"\0".join(parts)).digest()
