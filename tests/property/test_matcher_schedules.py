"""The five rules of the idempotent processor, over the real handler, in 20,000 random schedules.

Every rule left out is seen to fail in a part of them: a model that nothing can break proves nothing. The seed of a
failing schedule stands in the message; `World(seed, Rules()).run()` plays it again.
"""

import os
from collections import Counter

import msgspec
import pytest

from millrace_core.handling import Handled
from millrace_core.record import Received
from millrace_matcher.handlers import MatcherHandler
from millrace_matcher.outputs import Origin
from millrace_matcher.unique_keys import Claim, UniqueKeys
from tests.property.matcher_model import Rules, World

SEED = int(os.environ.get("MILLRACE_SEED", "1"))
SCHEDULES = 20_000
PARTS = 4
BROKEN_SCHEDULES = 400


def play(rules: Rules, seeds: range) -> tuple[list[int], Counter[str]]:
    bad: list[int] = []
    kinds: Counter[str] = Counter()
    for seed in seeds:
        faults = World(seed, rules).run()
        if faults:
            bad.append(seed)
            kinds.update(faults)
    return bad, kinds


@pytest.mark.parametrize("part", range(PARTS))
def test_every_schedule_ends_right(part: int) -> None:
    first = SEED * 1_000_000 + part * (SCHEDULES // PARTS)
    print(f"seeds {first} to {first + SCHEDULES // PARTS - 1}")
    bad, kinds = play(Rules(), range(first, first + SCHEDULES // PARTS))
    assert not bad, f"{len(bad)} schedules end wrong, {dict(kinds)}; seeds {bad[:5]}"


class ByTheClock(UniqueKeys):
    """Rule 3 worded the simple way: the window counts from when a record is handled."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def earlier(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> Claim | None:
        return super().earlier(partition, digest, offset=offset, at_ms=self._world.now_ms, event=event)

    def claim(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> tuple[bytes, bytes]:
        return super().claim(partition, digest, offset=offset, at_ms=self._world.now_ms, event=event)


class OneEntryForEver(UniqueKeys):
    """Rule 3 without the day in the key: an entry is written over, and the last one written stands."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[bytes, tuple[int, int, str]] = {}

    def restore(self, partition: int, entries: object) -> None:
        for key, value in entries:  # type: ignore[attr-defined]
            offset, at_ms, event = msgspec.json.decode(value, type=tuple[int, int, str])
            self._entries[key] = (offset, at_ms, event)

    def earlier(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> Claim | None:
        entry = self._entries.get(digest)
        if entry is None or entry[0] >= offset or at_ms - entry[1] >= 86_400_000:
            return None
        return Claim(*entry)

    def claim(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> tuple[bytes, bytes]:
        self._entries[digest] = (offset, at_ms, event)
        return digest, msgspec.json.encode(self._entries[digest])


class ClaimedByAnyone(UniqueKeys):
    """Rule 3 without the offset: the record that claimed a key is its own duplicate when it is read again."""

    def earlier(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> Claim | None:
        return super().earlier(partition, digest, offset=offset + 1, at_ms=at_ms, event=event)


class ReplaysAreTheSame(MatcherHandler):
    """Rule 5 left out: a replay's id is in no derived id."""

    def _children(self, origin: Origin) -> tuple[list, list, list]:  # type: ignore[type-arg]
        return super()._children(
            msgspec.structs.replace(origin, event=msgspec.structs.replace(origin.event, replay=""))
        )


class ReplaysAreRepeats(MatcherHandler):
    """Rule 5 left out: a replay does not pass by the window."""

    def handle(self, records: list[Received], position: int) -> Handled:  # type: ignore[override]
        plain = [msgspec.structs.replace(one, value=without_replay(one.value)) for one in records]  # type: ignore[type-var,arg-type]
        return super().handle(plain, position)


def without_replay(value: bytes) -> bytes:
    members = msgspec.json.decode(value)
    members.pop("replay", None)
    return msgspec.json.encode(members)


@pytest.mark.parametrize(
    ("left_out", "rules"),
    [
        ("1: a fact goes out after what it names is acked", Rules(facts_last=False)),
        ("1: what an event matched is a union", Rules(union=False)),
        ("1: the commit comes last", Rules(commit_last=False)),
        ("2: the window is one of source offsets", Rules(source_window=False)),
        ("2: below the window there is a fact `stale`", Rules(stale_facts=False)),
        ("2: an id is claimed by the offset that brought it", Rules(own_claim_downstream=False)),
        ("3: the window is on the records' own time", Rules(keys=ByTheClock)),
        ("3: the UTC day is part of the key", Rules(keys=lambda world: OneEntryForEver())),
        ("3: the offset that claimed a key may be handled again", Rules(keys=lambda world: ClaimedByAnyone())),
        ("3: the entries are restored", Rules(restore=False)),
        ("5: a replay's id is in every derived id", Rules(handler=ReplaysAreTheSame)),
        ("5: a replay passes by the window", Rules(handler=ReplaysAreRepeats)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_rule_left_out_is_seen(left_out: str, rules: Rules) -> None:
    first = SEED * 1_000_000
    bad, kinds = play(rules, range(first, first + BROKEN_SCHEDULES))
    print(f"without {left_out!r}: {len(bad)} of {BROKEN_SCHEDULES} end wrong, {dict(kinds)}")
    assert bad, f"nothing noticed that this rule was left out: {left_out}"
