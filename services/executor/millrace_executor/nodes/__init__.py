"""The types of nodes, one module each, and the one table that names them. A new type is a module and a line here."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from millrace_core.record import Output
from millrace_core.runs import LAST_WORDS
from millrace_executor.nodes import action, condition, http, publish, transform, workflow_ended
from millrace_executor.ports import Node, Over

NODES: Mapping[str, Node] = MappingProxyType(
    {
        "http": http.run,
        "transform": transform.run,
        "condition": condition.run,
        "publish": publish.run,
        "action": action.run,
        LAST_WORDS: workflow_ended.run,
    }
)

TOLD: Mapping[str, Callable[[Over], Sequence[Output]]] = MappingProxyType({"action": action.told})
"""What is written beside the result of an attempt, however it ended."""
