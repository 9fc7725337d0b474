"""Random schedules of the whole way, in virtual time: each event comes to exactly its run and its delivery.

`make test`: 200 seeds; `make fault` (`MILLRACE_FAULT=full`): 10,000. The seed of a schedule that ends wrong stands in
the message; `World(seed).run()` plays it again. Five bugs that such systems are known for are planted, one at a time:
a simulation that nothing can break proves nothing.
"""

import os
from collections import Counter

import pytest

from tests.property.simulation import Planted, World

FULL = os.environ.get("MILLRACE_FAULT") == "full"
SEED = int(os.environ.get("MILLRACE_SEED", "1"))
SCHEDULES = 10_000 if FULL else 200
PLANTED_SCHEDULES = 25


def play(count: int, planted: Planted | None = None) -> tuple[list[int], Counter[str]]:
    bad: list[int] = []
    kinds: Counter[str] = Counter()
    for seed in range(SEED * 1_000_000, SEED * 1_000_000 + count):
        if faults := World(seed, planted or Planted()).run():
            bad.append(seed)
            kinds.update(faults)
    return bad, kinds


def test_every_schedule_ends_right() -> None:
    bad, kinds = play(SCHEDULES)
    assert not bad, f"{len(bad)} of {SCHEDULES} schedules end wrong, {dict(kinds)}; seeds {bad[:5]}"


def test_schedules_are_worth_playing() -> None:
    """They have events, retries and crashes in them, or they would prove nothing."""
    worlds = [World(seed) for seed in range(20)]
    for world in worlds:
        world.run()
    assert sum(len(list(world.log.all("events"))) for world in worlds) > 100
    assert sum(len(list(world.log.all("deliveries-tx"))) for world in worlds) > 20
    assert sum(world.sent for world in worlds) > 150


@pytest.mark.parametrize(
    ("bug", "planted"),
    [
        ("commit before produce", Planted(commit_before_produce=True)),
        ("ack before handling", Planted(ack_before_handling=True)),
        ("ids that are not derived", Planted(random_ids=True)),
        ("state applied before the commit", Planted(state_before_commit=True)),
        ("dedupe outside the transaction", Planted(dedupe_outside=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_planted_bug_is_seen(bug: str, planted: Planted) -> None:
    bad, kinds = play(PLANTED_SCHEDULES, planted)
    print(f"{bug}: {len(bad)} of {PLANTED_SCHEDULES} end wrong, {dict(kinds)}")
    assert bad, f"nothing noticed this bug: {bug}"
