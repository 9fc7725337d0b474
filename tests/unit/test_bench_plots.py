"""The bench's HTML report: whole, readable by itself, and nothing in it that a browser would fetch or run."""

import re
from pathlib import Path
from xml.dom import minidom

from tests.bench.plots import Plot, spread, write
from tests.bench.report import figure


def test_the_report_holds_every_figure_and_curve(tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    figures = [figure("a < b", "ms", 5, limit=2, bar=4, better="less"), figure("plain", "events/s", 3)]
    plots = [
        spread("Latency", "ms", {"ours": [3.0, 1.0, 2.0], "nothing": []}),
        Plot("Cost", "things", "µs", {"one": [(10, 4.0), (1_000_000, 5.0)]}, log_x=True),
        Plot("Empty", "s", "events", {"ours": []}),
    ]
    write(figures, plots, path, machine="2 processors")
    text = path.read_text()
    assert text.count("<tr>") == 3
    assert "a &lt; b" in text
    assert '<td class="no">no</td>' in text
    drawn = re.findall(r"<svg.*?</svg>", text)
    assert len(drawn) == 2, "what has no points says so instead"
    for svg in drawn:
        minidom.parseString(svg)  # raises where it is not well-formed
    assert not re.search(r"<script|https?://|url\(", text)


def test_a_spread_reaches_from_the_least_value_to_the_greatest() -> None:
    points = spread("Latency", "ms", {"ours": [5.0, 1.0, 3.0]}).curves["ours"]
    assert (points[0], points[-1]) == ((1.0, 0.0), (5.0, 100.0))
