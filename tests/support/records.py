"""Records of the run and timer topics, made by hand."""

from millrace_core.messages import Message, encode
from millrace_core.record import ACCOUNT, ID, SOURCE, Output, Written
from tests.support.plans import NOW_MS


def record(
    topic: str,
    offset: int,
    message: Message | bytes | None,
    *,
    key: str | None,
    source: str | None = None,
    id: str | None = None,
    at_ms: int = NOW_MS,
    account: str = "acc_1",
    more: tuple[tuple[str, bytes], ...] = (),
) -> Written:
    headers = [(ACCOUNT, account.encode()), (ID, (id or key or "").encode())]
    if source is not None:
        headers.append((SOURCE, source.encode()))
    return Written(
        topic=topic,
        partition=0,
        offset=offset,
        timestamp=at_ms,
        key=None if key is None else key.encode(),
        value=encode(message) if isinstance(message, Message) else message,
        headers=(*headers, *more),
    )


def as_record(output: Output, offset: int, *, at_ms: int = NOW_MS) -> Written:
    """An output as the next service reads it."""
    return Written(output.topic, 0, offset, at_ms, output.key, output.value, output.headers)


def on(outputs: list[Output], topic: str) -> list[Output]:
    """Those that went to one topic."""
    return [output for output in outputs if output.topic == topic]
