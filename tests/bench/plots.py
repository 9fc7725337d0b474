"""The HTML report of a run: every figure in a table, and the few curves that a number cannot show, as inline SVG.

One file without scripts, fonts or addresses, so that it can be kept and sent as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tests.bench.report import Figure, shown

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 260, 64, 40, 12
COLOURS = ("#1f6feb", "#d1711a", "#2f8f5b", "#8250df")
TICKS = 5
CURVE_POINTS = 200
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #d8dee4 }
td.number { text-align: right; font-variant-numeric: tabular-nums } .no { color: #b3261e; font-weight: 600 }
svg text { font: 12px system-ui, sans-serif; fill: #57606a }"""


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over one pair of axes. `log_x`: the powers of ten stand at equal distances."""

    title: str
    x: str
    y: str
    curves: Mapping[str, Points]
    log_x: bool = False


def spread(title: str, unit: str, values: Mapping[str, Sequence[float]]) -> Plot:
    """Of each set of values: which share of them lies below how much."""
    return Plot(title, unit, "share, %", {name: _cumulated(some) for name, some in values.items() if some}, log_x=True)


def write(figures: Sequence[Figure], plots: Sequence[Plot], path: Path, *, machine: str) -> None:
    """The report of one run."""
    rows = "".join(_row(each) for each in figures)
    drawn = "".join(f"<h2>{escape(plot.title)}</h2>{_svg(plot)}" for plot in plots)
    heads = "".join(f"<th>{head}</th>" for head in ("figure", "ours", "limit", "ratio", "bar", "holds"))
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Millrace bench</title><style>{STYLE}</style>'
        f"<h1>Millrace bench</h1><p>{escape(machine)}. The limit is the fewest lines of Python that do the same hops, "
        f"in the same run.</p><table><tr>{heads}</tr>{rows}</table>{drawn}</html>\n"
    )


def _row(one: Figure) -> str:
    numbers = (f"{shown(one.ours)} {escape(one.unit)}", shown(one.limit), shown(one.ratio), shown(one.bar))
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    verdict = {None: "<td>-</td>", True: "<td>yes</td>", False: '<td class="no">no</td>'}[one.holds]
    return f"<tr><td>{escape(one.name.strip())}</td>{cells}{verdict}</tr>"


def _cumulated(values: Sequence[float]) -> Points:
    ordered = sorted(values)
    shares = [n / CURVE_POINTS for n in range(CURVE_POINTS)] + [0.999, 1.0]
    return [(ordered[min(len(ordered) - 1, int(share * len(ordered)))], share * 100) for share in shares]


def _svg(plot: Plot) -> str:
    def along(x: float) -> float:
        return math.log10(max(x, 1e-9)) if plot.log_x else x

    xs = [along(x) for points in plot.curves.values() for x, _ in points]
    ys = [y for points in plot.curves.values() for _, y in points]
    if not xs:
        return "<p>nothing was measured</p>"
    low, high, top = min(xs), max(max(xs), min(xs) + 1e-9), max(*ys, 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (along(x) - low) / (high - low) * (WIDTH - LEFT - 20)
        return across, TOP + (1 - y / top) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{escape(plot.title)}">']
    for n in range(TICKS + 1):
        x, y = low + (high - low) * n / TICKS, top * n / TICKS
        across, down = place(10**x if plot.log_x else x, y)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{down:.1f}" y2="{down:.1f}" stroke="#e4e8ec"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        label = 10**x if plot.log_x else x
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label:.3g}</text>')
    for at, (name, points) in enumerate(plot.curves.items()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        colour = COLOURS[at % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        across, down = LEFT + 12, TOP + 14 + 16 * at
        parts.append(f'<text x="{across}" y="{down}" style="fill:{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{(WIDTH + LEFT) // 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(plot.x)}</text>')
    parts.append(f'<text x="4" y="{TOP + 2}">{escape(plot.y)}</text></svg>')
    return "".join(parts)
