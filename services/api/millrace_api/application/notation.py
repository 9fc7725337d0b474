"""Written ids and stored uuids: the prefix says what a thing is, and a wrong one names nothing."""

import uuid
from collections.abc import Collection

from millrace_api.application.problems import NoSuchId
from millrace_core import ids
from millrace_core.errors import Reject
from millrace_store.aggregates import PLAN_PREFIX

RUN_PREFIXES = ids.RUN_PREFIXES


def stored(written: str, what: str, *prefixes: str) -> uuid.UUID:
    """The uuid behind an id of one of these kinds. Raises NoSuchId when it is none."""
    return _stored(written, what, prefixes)


def stored_run(written: str) -> uuid.UUID:
    """The uuid of a run, under whichever prefix a surface showed it."""
    return _stored(written, "run", RUN_PREFIXES)


def _stored(written: str, what: str, prefixes: Collection[str]) -> uuid.UUID:
    if written.rpartition("_")[0] not in prefixes:
        raise NoSuchId(what, written[:64])
    try:
        return ids.uuid_of(written)
    except Reject:
        raise NoSuchId(what, written[:64]) from None


def written_plan(value: uuid.UUID | None, kind: str | None) -> str | None:
    """The written id of a plan of this kind."""
    return None if value is None else ids.prefixed(PLAN_PREFIX.get(kind or "", ids.JOB), value)


def written(prefix: str, value: uuid.UUID | None) -> str | None:
    """The written id, or None for none."""
    return None if value is None else ids.prefixed(prefix, value)
