"""What the faults came to: JSON in `.millrace/faults.json` after every cell, and a section of `docs/failures.md`.

Each row of the table is a nemesis on a victim, with the seeds it ran under. What did not run says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from tests.fault.arena import Verdict
from tests.fault.nemeses import NEMESES, Nemesis
from tests.support.infra import ROOT

JSON = ROOT / ".millrace" / "faults.json"
PAGE = ROOT / "docs" / "failures.md"
BEGIN, END = "<!-- written by `make fault`: begin -->", "<!-- written by `make fault`: end -->"
NOT_RUN = "not yet"
COUNTS = ("lost", "twice", "out of order", "unaccounted")
HEADS = ("nemesis", "what it is", "on", "seeds", "events", *COUNTS, "longest recovery")
COLUMNS = len(HEADS)
SEEDS_KEPT = 3


class Run(msgspec.Struct, frozen=True):
    """One cell under one seed."""

    nemesis: str
    on: str
    seed: int
    took_s: float
    verdict: Verdict


@dataclass
class Ledger:
    """What earlier runs left stands beside what later ones bring (`kept`); two runs at once may write to it in turn."""

    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    def enter(self, run: Run) -> None:
        """Keep what this run of a cell came to."""
        JSON.parent.mkdir(exist_ok=True)
        JSON.write_bytes(msgspec.json.format(msgspec.json.encode(kept(self.runs(), run))))

    def runs(self) -> list[Run]:
        """What there is so far."""
        return msgspec.json.decode(JSON.read_bytes(), type=list[Run]) if JSON.exists() else []

    def refuse(self, nemesis: Nemesis, victim: str, why: str) -> None:
        """This cell cannot run here."""
        self.refused[nemesis.name, victim] = why

    def write_page(self) -> None:
        """Put the table into the page, between its markers."""
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text("\n".join([before + BEGIN, *self._lines(), END]) + after)

    def _lines(self) -> Iterator[str]:
        yield "| " + " | ".join(HEADS) + " |"
        yield "|---" * COLUMNS + "|"
        for nemesis in NEMESES:
            for victim in nemesis.victims:
                yield _row(nemesis.name, nemesis.does, victim, self._cells(nemesis, victim))

    def _cells(self, nemesis: Nemesis, victim: str) -> Sequence[str]:
        runs = [run for run in self.runs() if (run.nemesis, run.on) == (nemesis.name, victim)]
        if not runs:
            return [f"not run: {self.refused.get((nemesis.name, victim), NOT_RUN)}"]
        verdicts = [run.verdict for run in runs]
        sums = (sum(getattr(each, name) for each in verdicts) for name in ("events", "lost", "twice", "unordered"))
        unaccounted = sum(each.unaccounted for each in verdicts)
        recoveries = [each.recovery_s for each in verdicts]
        longest = f"{max(filter(None, recoveries), default=0.0):.1f} s" if None not in recoveries else "not in time"
        ill = "" if all(each.holds for each in verdicts) else "; **did not hold**"
        seeds = ", ".join(str(run.seed) for run in sorted(runs, key=lambda run: run.seed))
        return [seeds, *map(str, sums), str(unaccounted), longest + ill]


def kept(runs: Sequence[Run], new: Run) -> list[Run]:
    """The latest run of a cell for each seed, and no more than three: of those that held, the oldest makes room. One
    that did not hold stands until its own seed runs again."""
    others = [run for run in runs if (run.nemesis, run.on) != (new.nemesis, new.on)]
    cell = [run for run in runs if (run.nemesis, run.on) == (new.nemesis, new.on) and run.seed != new.seed]
    held = [run for run in cell if run.verdict.holds]
    for oldest in held[: max(0, len(cell) + 1 - SEEDS_KEPT)]:
        cell.remove(oldest)
    return [*others, *cell, new]


def _row(name: str, does: str, victim: str, found: Sequence[str]) -> str:
    empty = [""] * (COLUMNS - 3 - len(found))
    return "| " + " | ".join([name, does, victim, *found, *empty]) + " |"
