"""The types of nodes, one module each, and the one table that names them. A new type is a module and a line here."""

from collections.abc import Mapping
from types import MappingProxyType

from millrace_executor.nodes import action, http, publish, transform
from millrace_executor.ports import Node

NODES: Mapping[str, Node] = MappingProxyType(
    {"http": http.run, "transform": transform.run, "publish": publish.run, "action": action.run}
)
