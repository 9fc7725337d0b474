"""How the documents name the events that a webhook hears: `workflow.executed`, `submission.created`, `invoice.paid`.

A webhook lists identifier patterns, or such names; a name means the same on every endpoint. What a document names
itself stands in one table; any other name is that of an event fired through the ops surface, `e:ops/<name>`, and may
end in `*`. An endpoint is sent an event under the name that its list has for it (`Naming`), else under the identifier.
Pure. Not here: who hears an event (`matching`), which works with the patterns that names stand for.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from millrace_core.errors import Reject
from millrace_core.identifiers import identifier_of, parse_pattern

OPS_PROVIDER: Final = "ops"
WORKFLOW_EXECUTED: Final = identifier_of("workflows", "workflow.executed")
SUBMISSION_CREATED: Final = identifier_of("forms", "submission.created")

DOCUMENTED: Mapping[str, str] = MappingProxyType(
    {
        "workflow.executed": WORKFLOW_EXECUTED,
        "form.submitted": SUBMISSION_CREATED,
        "submission.created": SUBMISSION_CREATED,
    }
)
"""Names that the documents give the platform's own events. A new one is a line here."""

_FAMILIES = frozenset(name.partition(".")[0] for name in DOCUMENTED)
_OPS = f"e:{OPS_PROVIDER}/"


def is_name(written: str) -> bool:
    """Whether it is a name, and not a pattern of identifiers."""
    return not written.startswith("e:") and "/" not in written


def pattern_of(written: str) -> str:
    """The pattern that a member of an endpoint's list stands for. Raises Reject when it is neither name nor pattern.

    `workflow.…`, `form.…` and `submission.…` are the documents' to give: a misspelt one is told, not waited for."""
    if not is_name(written):
        return str(parse_pattern(written))
    documented = DOCUMENTED.get(written)
    if documented is not None:
        return documented
    if written.partition(".")[0] in _FAMILIES:
        known = ", ".join(sorted(DOCUMENTED))
        raise Reject(
            f"there is no event {written[:200]!r}: there are {known}, names of ops events, and e:provider/name"
        )
    return str(parse_pattern(_OPS + written))


class Naming:
    """What one endpoint calls the events it hears."""

    __slots__ = ("_exact", "_open")

    def __init__(self, written: Sequence[str]) -> None:
        """`written` is the endpoint's list; patterns in it name nothing. Raises Reject as `pattern_of` does."""
        names = {name: pattern_of(name) for name in written if is_name(name)}
        self._exact = {pattern: name for name, pattern in names.items() if not pattern.endswith("*")}
        self._open = tuple(pattern[:-1] for pattern in names.values() if pattern.endswith("*"))

    def __bool__(self) -> bool:
        return bool(self._exact or self._open)

    def type_of(self, identifier: str) -> str:
        """What the body's `type` says of an event with this identifier."""
        name = self._exact.get(identifier)
        if name is not None:
            return name
        # Only names of ops events are open.
        return identifier.removeprefix(_OPS) if self._open and identifier.startswith(self._open) else identifier
