"""Alert rules, dashboards and scrapes against the metrics the services declare, and their copies in the chart."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from millrace_runtime.metric_defs import METRICS
from tests.support.platform import SERVICES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yaml"
SCRAPE = ROOT / "deploy/prometheus/prometheus.yaml"
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
CHART = ROOT / "helm/millrace"

SCRAPED = {"job", "instance", "le"}
# Metrics that are not ours: Prometheus' own, and the Python client's about its process.
FOREIGN = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
WORDS = {"sum", "max", "min", "avg", "count", "rate", "increase", "histogram_quantile", "by", "without", "vector",
         "topk", "and", "or", "unless", "on", "ignoring", "group_left", "group_right", "abs", "time"}  # fmt: skip


def declared(name: str) -> str | None:
    """The declaration a sample's name belongs to."""
    if name in METRICS:
        return name if METRICS[name].kind != "histogram" else None
    for suffix in ("_bucket", "_sum", "_count"):
        stem = name.removesuffix(suffix)
        if stem != name and stem in METRICS and METRICS[stem].kind == "histogram":
            return stem
    return None


def problems(expression: str) -> Iterator[str]:
    """What an expression names that no service has."""
    if expression.count("(") != expression.count(")") or expression.count("{") != expression.count("}"):
        yield "its brackets do not close"
    bare = re.sub(r'"[^"]*"', '""', expression)
    labels: set[str] = set()
    for name in re.findall(
        r"\b[a-z_][a-z0-9_]*\b(?!\s*(?:[=!]~?))", re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby\s*\([^)]*\)", "", bare)
    ):
        if name in WORDS or name in FOREIGN:
            continue
        stem = declared(name)
        if stem is None:
            yield f"no service has the metric {name}"
        else:
            labels |= set(METRICS[stem].labels)
    for selector in re.findall(r"([a-z_][a-z0-9_]*)\{([^}]*)\}", bare):
        stem = declared(selector[0])
        own = set(METRICS[stem].labels) if stem else set()
        yield from (
            f"{selector[0]} has no label {label}"
            for label in re.findall(r"([a-z_]+)\s*[=!]~?", selector[1])
            if label not in own | SCRAPED
        )
    for group in re.findall(r"\bby\s*\(([^)]*)\)", bare):
        yield from (
            f"nothing in it has the label {label.strip()}"
            for label in group.split(",")
            if label.strip() not in labels | SCRAPED
        )


def alerts() -> list[Any]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def targets() -> list[Any]:
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [
                pytest.param(target["expr"], id=f"{path.stem}: {panel['title']}") for target in panel.get("targets", [])
            ]
    return found


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_names_metrics_that_exist_and_says_what_to_do(rule: Any) -> None:
    assert list(problems(rule["expr"])) == []
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 40
    text = rule["annotations"]["summary"] + rule["annotations"]["description"]
    names = set(re.findall(r"(?:millrace|process)_[a-z0-9_]+|\bup\b", rule["expr"]))
    labels = {label for name in names if (stem := declared(name)) for label in METRICS[stem].labels} | SCRAPED
    assert set(re.findall(r"\$labels\.([a-z_]+)", text)) <= labels


@pytest.mark.parametrize("expression", targets())
def test_a_panel_names_metrics_that_exist(expression: str) -> None:
    assert list(problems(expression.replace("$__rate_interval", "5m"))) == []


def test_the_check_finds_what_is_wrong() -> None:
    for wrong in (
        "millrace_no_such_thing > 0",
        "rate(millrace_http_request_seconds[5m])",
        "sum by (topic) (millrace_unaccounted)",
        'millrace_unaccounted{topic="x"} > 0',
        "sum(millrace_unaccounted",
        "millrace_unaccounted_bucket",
    ):
        assert list(problems(wrong)), wrong


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"].startswith("millrace-")
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert "datasource" in variables
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"]
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_no_two_panels_lie_on_each_other() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_every_service_is_scraped_under_its_name() -> None:
    (config,) = yaml.safe_load(SCRAPE.read_text())["scrape_configs"]
    assert config["static_configs"][0]["targets"] == [f"{name}:9464" for name in SERVICES]
    (relabel,) = config["relabel_configs"]
    assert (
        re.sub(f"^{relabel['regex']}$", relabel["replacement"].replace("$1", r"\1"), "gateway:9464")
        == "millrace-gateway"
    )


def test_the_chart_carries_the_same_rules_and_dashboard() -> None:
    assert (CHART / "files/rules.yaml").read_text() == RULES.read_text()
    assert (CHART / "files/overview.json").read_text() == (ROOT / "deploy/grafana/dashboards/overview.json").read_text()


def test_grafana_finds_the_dashboards_and_their_source() -> None:
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert sources["datasources"][0]["type"] == "prometheus"
    providers = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/millrace.yaml").read_text())
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    mounted = {volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]}
    assert providers["providers"][0]["options"]["path"] in mounted
