"""`make bench`: ours beside the bare limit, in one run, as `.millrace/bench.json` and, with its curves, `bench.html`.
`make bench-quick`: a few minutes.

Nothing here asserts a speed: a bar that does not hold is written down as such.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from tests.bench import growth, growth_rows, ingest, matching, report, scaling, statements, surfaces, webhooks
from tests.bench.plots import Plot
from tests.bench.plots import write as draw
from tests.bench.report import Figure
from tests.bench.stack import Stack, stack

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".millrace" / "bench"
RESULT = ROOT / ".millrace" / "bench.json"
Measure = Callable[[Stack], Awaitable[Sequence[Figure | Plot]]]


def plan(quick: bool) -> dict[str, Measure]:
    """The measurements by name, at full or short length."""
    rounds = 1 if quick else 3
    seconds = 4.0 if quick else 8.0
    return {
        "ingest": lambda s: ingest.single(s, rounds=rounds, seconds=seconds),
        "batch": lambda s: ingest.batch(s, rounds=rounds, seconds=seconds),
        "matching": lambda s: matching.run(s, rounds=rounds, count=60_000 if quick else 240_000),
        "statements": lambda s: statements.projector(s, count=30_000 if quick else 60_000, seconds=5 if quick else 20),
        "scaling": lambda s: scaling.matcher(s, count=50_000 if quick else 150_000),
        "subscriptions": lambda s: growth.matching(largest=100_000 if quick else 1_000_000),
        "control": lambda s: growth.control(s, count=100_000 if quick else 1_000_000),
        "orchestrator": lambda s: growth.orchestrator(s, runs=5_000 if quick else 30_000),
        "restart": lambda s: growth.restart(s, keys=100_000 if quick else 1_000_000, runs=10_000 if quick else 100_000),
        "backlog": lambda s: growth.backlog(s, count=100_000 if quick else 1_000_000),
        "rows": lambda s: growth_rows.lists(s, rows=1_000_000 if quick else 10_000_000),
        "surfaces": lambda s: surfaces.run(s, rate=50, seconds=10 if quick else 60),
        "webhooks": lambda s: webhooks.run(
            s,
            latency_s=15 if quick else 60,
            probe_s=6 if quick else 15,
            hold_s=20 if quick else 60,
            long_s=30 if quick else 600,
            rest_s=5 if quick else 60,
        ),
    }


async def main(quick: bool, only: list[str]) -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    figures: list[Figure] = []
    plots: list[Plot] = []
    async with stack(FOLDER) as running:
        for name, measure in plan(quick).items():
            if only and name not in only:
                continue
            print(f"… {name}", file=sys.stderr, flush=True)
            found = await measure(running)
            figures += [each for each in found if isinstance(each, Figure)]
            plots += [each for each in found if isinstance(each, Plot)]
            report.write(figures, RESULT)
            machine = f"{os.cpu_count()} processors, everything on them (client and sink too)"
            draw(figures, plots, RESULT.with_suffix(".html"), machine=machine)
    print(report.table(figures))
    print(f"{RESULT} and {RESULT.with_suffix('.html').name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("only", nargs="*", help="which of them; all when none is named")
    arguments = parser.parse_args()
    sys.exit(uvloop.run(main(arguments.quick, arguments.only)))
