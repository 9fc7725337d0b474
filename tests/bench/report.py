"""One figure of the bench: ours beside the bare limit of the same run, and whether the bar holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """`better` says which way is good; `bar` is compared with `ratio` or with `ours`, as `against` says."""

    name: str
    unit: str
    ours: float
    limit: float | None
    ratio: float | None
    bar: float | None
    holds: bool | None


def figure(
    name: str,
    unit: str,
    ours: float | Sequence[float],
    *,
    limit: float | Sequence[float] | None = None,
    bar: float | None = None,
    against: Literal["ratio", "ours"] = "ours",
    better: Literal["more", "less"] = "more",
) -> Figure:
    """Medians of what was measured, rounded to four digits."""
    mine = _middle(ours)
    bare = None if limit is None else _middle(limit)
    ratio = mine / bare if bare else None
    compared = ratio if against == "ratio" else mine
    holds = None
    if bar is not None and compared is not None:
        holds = compared >= bar if better == "more" else compared <= bar
    return Figure(name, unit, float(f"{mine:.4g}"), _four(bare), _four(ratio), bar, holds)


def write(figures: Sequence[Figure], path: Path) -> None:
    """The JSON list that `make bench` leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n")


def table(figures: Sequence[Figure]) -> str:
    """The same for a human."""
    head = f"{'name':<44}{'unit':<16}{'ours':>10}{'limit':>10}{'ratio':>8}{'bar':>8}  holds"
    rows = [
        f"{f.name:<44}{f.unit:<16}{shown(f.ours):>10}{shown(f.limit):>10}{shown(f.ratio):>8}{shown(f.bar):>8}"
        f"  {'-' if f.holds is None else 'yes' if f.holds else 'NO'}"
        for f in figures
    ]
    return "\n".join([head, *rows])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _middle(value: float | Sequence[float]) -> float:
    return value if isinstance(value, int | float) else median(value)


def _four(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def shown(value: float | None) -> str:
    """A number for a human; - when there is none."""
    return "-" if value is None else f"{value:g}"
