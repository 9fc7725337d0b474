"""Flows of subscriptions and accounts, as the API takes and shows them, and as a row keeps them: JSON, as published.

Not here: what a flow may ask for (`millrace_core.flow`), and what it does (the orchestrator's `admissions`).
"""

from typing import Any

import orjson

from millrace_core.messages import FlowControl, decode, encode

_NONE_LEFT = "{}"
"""Of what had a flow: the flow's owner must hear that there is none, for the runs that still wait."""


def flow_of(flow: dict[str, Any]) -> FlowControl:
    """A flow as it was posted. Raises Reject for one that is none."""
    return decode(orjson.dumps(flow), FlowControl)


def kept(flow: dict[str, Any] | None, *, before: str | None) -> str | None:
    """What the row holds from now on; `before` is what it held."""
    if flow is None:
        return None if before is None else _NONE_LEFT
    return encode(flow_of(flow)).decode()


def shown(kept: str | None) -> dict[str, Any] | None:
    """A row's flow; None = nothing is asked for."""
    return None if kept is None or kept == _NONE_LEFT else orjson.loads(kept)
