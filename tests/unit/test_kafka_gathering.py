"""The pace of a loop: at once while it is calm, apart while it is busy, and not a moment longer than is of use."""

import asyncio

from millrace_core import limits
from millrace_kafka.gathering import FADE_S, Gathering

LONG_S = 3_600.0
MANY = 1_000_000


def _is_at_once(gathering: Gathering, records: int = MANY) -> bool:
    turn = gathering.turn(records)
    try:
        turn.send(None)
    except StopIteration:
        return True
    turn.close()
    return False


async def test_the_first_turn_begins_at_once() -> None:
    assert _is_at_once(Gathering(LONG_S))


async def test_the_pause_shrinks_with_the_rate() -> None:
    gathering, loop = Gathering(0.1), asyncio.get_running_loop()
    await gathering.turn(0)
    assert _is_at_once(gathering, 0)
    began = loop.time()
    assert not _is_at_once(gathering, int(limits.GATHER_FULL_PER_S * FADE_S) // 10)
    await gathering.turn(0)
    assert 0.005 < loop.time() - began < 0.09


async def test_a_turn_waits_until_the_one_before_is_so_long_ago() -> None:
    gathering, loop = Gathering(0.02), asyncio.get_running_loop()
    await gathering.turn(MANY)
    began = loop.time()
    await gathering.turn(MANY)
    assert loop.time() - began >= 0.019
    while loop.time() - began < 0.05:
        await asyncio.sleep(0)
    assert _is_at_once(gathering)


async def test_enough_ends_the_pause() -> None:
    gathering = Gathering(LONG_S)
    await gathering.turn(MANY)
    async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
        tasks.create_task(gathering.turn(MANY))
        await asyncio.sleep(0)
        gathering.enough()


async def test_enough_said_between_two_turns_leaves_out_one_pause_and_no_more() -> None:
    gathering = Gathering(LONG_S)
    await gathering.turn(MANY)
    gathering.enough()
    assert _is_at_once(gathering)
    assert not _is_at_once(gathering)


async def test_a_turn_that_was_cancelled_leaves_the_next_one_in_order() -> None:
    gathering = Gathering(LONG_S)
    await gathering.turn(MANY)
    assert not _is_at_once(gathering)
    gathering.enough()
    assert _is_at_once(gathering)
