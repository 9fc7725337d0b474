"""Structured logs: one JSON line an outcome, on stdout, named by a dotted fact (`relay.batch.published`).

Secrets do not reach a line: members with a secret's name are replaced whole, and what looks like a credential inside
any text is cut out (bearer tokens, API keys, webhook secrets, passwords in addresses). What other libraries log comes
out in the same shape, from `warning` up.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

REDACTED = "[redacted]"
SECRET_NAMES = re.compile(
    r"(?i)(^|_)(authorization|cookie|password|passwd|secrets?|tokens?|api_?key|pepper|key_ring|dsn|signature)$"
)
SECRET_TEXTS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (
        re.compile(r"\b(mr_live_|mr_test_|iozen_live_|th_live_|th_test_|ok_live_|os_live_|whsec_)[\w+/=-]+"),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(\w{1,20}://[^\s:/@]{0,200}):[^\s/@]{1,400}@"), rf"\1:{REDACTED}@"),
)
TEXT_CHARS_MAX = 4_000
SECRET_CHARS_MAX = 600


def configure(service: str, *, instance: str, level: str) -> FilteringBoundLogger:
    """Set this process's logging up, once, and give its logger."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=False,
    )
    logger: FilteringBoundLogger = structlog.get_logger().bind(service=service, instance=instance)
    handler = _Bridge(logger)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    return logger


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor that takes secrets out of a line."""
    for name, value in event.items():
        event[name] = REDACTED if SECRET_NAMES.search(name) and value is not None else _clean(value)
    return event


def clean_text(text: str) -> str:
    """The text without anything that looks like a credential, and not longer than a line should be."""
    # Cut first, or a large text costs its square; what stands across the cut is cut off again after the cleaning.
    cleaned = text[: TEXT_CHARS_MAX + SECRET_CHARS_MAX]
    for pattern, replacement in SECRET_TEXTS:
        cleaned = pattern.sub(replacement, cleaned)
    return cleaned if len(text) <= TEXT_CHARS_MAX else cleaned[:TEXT_CHARS_MAX] + "…"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return redact(None, "", {str(name): member for name, member in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(member) for member in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean_text(str(value))


def _dumps(event: Any, **_: Any) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:  # a lone surrogate, an integer over 64 bits: the line must still come out
        return orjson.dumps({name: _plain(value) for name, value in event.items()})


def _plain(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


class _Bridge(logging.Handler):
    """The standard library's records, in our shape."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._logger.log(
                record.levelno,
                "library.said",
                logger=record.name,
                message=record.getMessage(),
                **({"exc_info": record.exc_info} if record.exc_info else {}),
            )
        except Exception:
            self.handleError(record)
