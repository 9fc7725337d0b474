"""The last words of a workflow's run: the event `e:workflows/workflow.executed`, so that others can listen for it.

No plan holds this type: the orchestrator asks for it when the run has ended, and takes no notice of the result. It has
one hop more than the event that the run came from, and beyond the bound it is left out: workflows that start one
another come to an end. An output that no event may hold (too deep, no finite numbers) is left out of it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from millrace_core import event
from millrace_core.errors import Reject
from millrace_core.event_names import WORKFLOW_EXECUTED
from millrace_executor.nodes import publish
from millrace_executor.ports import Attempt, Done, Tools


async def run(attempt: Attempt, tools: Tools) -> Done:
    """Publish what the step was given."""
    said = attempt.scope.variables["previous"]
    if not isinstance(said, Mapping):
        raise Reject("last words are an object")
    posted = event.Posted(
        identifier=WORKFLOW_EXECUTED,
        properties=_properties(said),
        unique_key=publish.UNIQUE_KEY_PREFIX + attempt.step.key,
    )
    return publish.published(posted, attempt, tools)


def _properties(said: Mapping[str, Any]) -> msgspec.Raw:
    try:
        return event.checked_properties(msgspec.json.encode(said))
    except (Reject, ValueError):
        return event.checked_properties(msgspec.json.encode({**said, "output": None}))
