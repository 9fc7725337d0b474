"""What `audit` says about the read models: one row an entry, the first of an id stands. Pure."""

from millrace_core.messages import AuditEntry, Raw, decode
from millrace_core.record import Received
from millrace_projector.rows import Rows
from millrace_projector.values import clean, clean_or_none, int8, moment, uuid_hex


def audited(record: Received, rows: Rows) -> None:
    """`audit`: something that was asked, decided or done."""
    entry = decode(record.value, AuditEntry)
    key = clean(entry.account), uuid_hex(entry.id)
    row = (
        *key,
        moment(entry.at),
        entry.kind,
        clean(entry.actor),
        clean_or_none(entry.role),
        clean_or_none(entry.action),
        None if entry.version is None else int8(entry.version),
        clean_or_none(entry.run),
        clean_or_none(entry.confirmation),
        clean_or_none(entry.prompt),
        clean_or_none(entry.rendered),
        clean_or_none(entry.response),
        clean_or_none(entry.outcome),
        None if entry.error is None else clean(entry.error.code),
        None if entry.error is None else clean(entry.error.message),
        entry.duration_ms,
        _bytes_or_none(entry.params),
        _bytes_or_none(entry.result),
    )
    rows.audit.setdefault(key, row)


def _bytes_or_none(value: Raw) -> bytes | None:
    """JSON as it came; `null` is nothing."""
    written = bytes(value)
    return None if written == b"null" else written
