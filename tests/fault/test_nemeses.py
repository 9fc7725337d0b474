"""Every nemesis on every victim while events flow: nothing is lost, doubled or out of order, all is accounted for.

`make test`: one seed of a few cells. `make fault` (`MILLRACE_FAULT=full`): every cell under three seeds, and the table
in docs/failures.md. `MILLRACE_SEED` replays a run, `-k` chooses cells. A cell that fails leaves its arena behind: the
next one gets a new one.
"""

import os
import random
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fault.arena import Arena, arena
from tests.fault.ledger import Ledger, Run
from tests.fault.nemeses import NEMESES, Nemesis
from tests.support import infra
from tests.support.own_disk import refusal

FULL = os.environ.get("MILLRACE_FAULT") == "full"
SEED = int(os.environ.get("MILLRACE_SEED") or random.SystemRandom().randrange(2**32))
SEEDS = 3 if FULL else 1


@dataclass
class Arenas:
    """One arena at a time, made when it is first wanted, made anew when it was left or another cluster is wanted."""

    home: Path
    _made: int = 0
    _current: Arena | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def current(self, brokers: int) -> Arena:
        if self._current is not None and len(self._current.brokers) + 1 != brokers:
            await self.leave()
        if self._current is None:
            self._made += 1
            made = arena(self.home / f"arena-{self._made}", brokers=brokers)
            self._current = await self._stack.enter_async_context(made)
        return self._current

    async def leave(self) -> None:
        self._current = None
        await self._stack.aclose()


@pytest.fixture(scope="module")
async def arenas() -> AsyncIterator[Arenas]:
    made = Arenas(infra.own_home())
    try:
        yield made
    finally:
        await made.leave()


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    kept = Ledger()
    yield kept
    if FULL:
        kept.write_page()


def cells() -> Iterator[object]:
    for n in range(SEEDS):
        for nemesis in NEMESES:
            for victim in nemesis.victims if FULL else nemesis.in_short:
                yield pytest.param(nemesis, victim, SEED + n, id=f"{nemesis.name}-{victim}-{n}")


@pytest.mark.parametrize(("nemesis", "victim", "seed"), list(cells()))
async def test_a_nemesis(arenas: Arenas, ledger: Ledger, nemesis: Nemesis, victim: str, seed: int) -> None:
    if nemesis.needs_disk and (why := refusal()):
        print(f"\n{nemesis.name} on {victim}: not run, {why}")
        ledger.refuse(nemesis, victim, why)
        return
    whole = await arenas.current(nemesis.brokers)
    began = time.monotonic()
    course = zlib.crc32(f"{seed}/{nemesis.name}/{victim}".encode())
    try:
        async with nemesis.stage(whole, victim, random.Random(course)) as strike:
            async with whole.loaded(course) as load:
                await strike()
                recovery_s = await whole.recovered(load)
            verdict = await whole.judged(load)
        verdict.recovery_s = recovery_s
        took_s = round(time.monotonic() - began, 1)
        print(
            f"\n{nemesis.name} on {victim}: MILLRACE_SEED={seed}, {verdict.events} events, lost {verdict.lost}, "
            f"twice {verdict.twice}, out of order {verdict.unordered}, unaccounted {verdict.unaccounted}, "
            f"recovered in {verdict.recovery_s} s, fell {verdict.falls}, refused posts {dict(load.refused)}, "
            f"took {took_s} s{''.join(f'; {note}' for note in verdict.notes)}"
        )
        ledger.enter(Run(nemesis.name, victim, seed, took_s, verdict))
        assert verdict.holds, verdict
    except BaseException:
        for replica in whole.platform.running:
            print(f"── {replica}\n{whole.platform.tail(replica, 12)}")
        await arenas.leave()
        raise
