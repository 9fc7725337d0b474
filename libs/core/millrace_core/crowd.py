"""Many subscriptions in one place: those that ask for equality are found by the value they ask for.

A subscription whose filter has an equality (`{"repository": {"id": [7]}}`) stands under that path and value; the others
stand aside and are always looked at. Of several equalities the one that fewest others share is chosen. The paths form
a tree that is walked together with the event's properties, along whichever has fewer members at each turn, so an event
costs what it holds and not what is asked. What is found is a candidate: the whole filter decides, elsewhere.
"""

from typing import Any, Final

import msgspec
import orjson

from millrace_core.filters import Equality, equalities

NO_FILTER: Final = frozenset((b"", b"null", b"{}"))
# An equality with more values would take more index entries than it saves.
_INDEXED_VALUES_MAX: Final = 16


class Entry(msgspec.Struct, gc=False, eq=False):
    """A subscription as kept: its id, and the control record's bytes."""

    id: str
    value: bytes


Standing = Entry | dict[str, Entry]
"""Who asks for one value: one, or several by id."""


class _Step(msgspec.Struct, eq=False):
    """One member of a path: what lies below it, and who asks for which value here."""

    below: "dict[str, _Step]"
    values: dict[Any, Standing]


class Crowd:
    """The subscriptions of one place, by what they ask for."""

    __slots__ = ("_aside", "_indexed", "_root")

    def __init__(self) -> None:
        self._root = _Step({}, {})
        self._aside: dict[str, Entry] = {}
        self._indexed = 0

    def __len__(self) -> int:
        return len(self._aside) + self._indexed

    def join(self, entry: Entry) -> None:
        """Take an entry that is not here yet."""
        leaf = self._best(leaves_of(entry))
        if leaf is None:
            self._aside[entry.id] = entry
            return
        self._indexed += 1
        values = self._values(leaf.path)
        for value in leaf.values:
            there = values.get(value)
            if there is None:
                values[value] = entry
            elif isinstance(there, Entry):
                values[value] = {there.id: there, entry.id: entry}
            else:
                there[entry.id] = entry

    def leave(self, entry: Entry) -> None:
        """Let an entry go; what it alone stood on goes with it."""
        if self._aside.get(entry.id) is entry:
            del self._aside[entry.id]
            return
        for leaf in leaves_of(entry):
            way = self._way(leaf.path)
            if way is None or not _stands(way[-1].values.get(leaf.values[0]), entry):
                continue
            self._indexed -= 1
            for value in leaf.values:
                _take_away(way[-1].values, value, entry)
            for name, above, step in zip(reversed(leaf.path), reversed(way[:-1]), reversed(way[1:]), strict=True):
                if not step.below and not step.values:
                    del above.below[name]
            return

    def candidates(self, data: Any) -> list[Entry]:
        """Everyone whom these properties might concern, each once."""
        found = dict(self._aside)
        if self._indexed:
            _probe(self._root, data, found)
        return list(found.values())

    def _best(self, leaves: list[Equality]) -> Equality | None:
        """The equality that fewest share; among equals the path that most already use, so that few are probed."""
        chosen: Equality | None = None
        best: tuple[int, int, tuple[str, ...]] | None = None
        for leaf in leaves:
            if len(leaf.values) > _INDEXED_VALUES_MAX:
                continue
            way = self._way(leaf.path)
            values = way[-1].values if way is not None else {}
            rank = (sum(_count(values.get(value)) for value in leaf.values), -len(values), leaf.path)
            if best is None or rank < best:
                best, chosen = rank, leaf
        return chosen

    def _values(self, path: tuple[str, ...]) -> dict[Any, Standing]:
        step = self._root
        for name in path:
            below = step.below.get(name)
            if below is None:
                below = step.below[name] = _Step({}, {})
            step = below
        return step.values

    def _way(self, path: tuple[str, ...]) -> list[_Step] | None:
        way = [self._root]
        for name in path:
            below = way[-1].below.get(name)
            if below is None:
                return None
            way.append(below)
        return way


def leaves_of(entry: Entry) -> list[Equality]:
    """The equalities of an entry's filter, which was checked when it came."""
    raw = bytes(_filter_of(entry.value).filter)
    return [] if raw in NO_FILTER else equalities(orjson.loads(raw))


class _FilterOnly(msgspec.Struct, gc=False):
    filter: msgspec.Raw = msgspec.Raw(b"null")


_filter_of = msgspec.json.Decoder(_FilterOnly).decode


def _stands(there: Standing | None, entry: Entry) -> bool:
    return there is entry or (isinstance(there, dict) and there.get(entry.id) is entry)


def _take_away(values: dict[Any, Standing], value: Any, entry: Entry) -> None:
    there = values.get(value)
    if isinstance(there, dict):
        there.pop(entry.id, None)
    if there is entry or there == {}:
        del values[value]


def _count(there: Standing | None) -> int:
    return 0 if there is None else len(there) if isinstance(there, dict) else 1


def _probe(step: _Step, data: Any, found: dict[str, Entry]) -> None:
    if isinstance(data, dict):
        below = step.below
        if len(below) <= len(data):
            for name, next_step in below.items():
                if name in data:
                    _probe(next_step, data[name], found)
        else:
            for name, value in data.items():
                if name in below:
                    _probe(below[name], value, found)
    elif isinstance(data, list):
        for element in data:
            _probe(step, element, found)
    elif step.values:
        # As `filters.scalar` writes it: Python holds True for 1.
        there = step.values.get((data,) if data is True or data is False else data)
        if isinstance(there, Entry):
            found[there.id] = there
        elif there is not None:
            found.update(there)
