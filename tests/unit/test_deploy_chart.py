"""What can be said of the chart without Helm; `make helm-check` renders it and checks the objects."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from millrace_kafka.groups import GROUPS
from tests.support import helm
from tests.support.platform import HTTP_SERVICES, SERVICES

CHART = Path(__file__).parents[2] / "helm/millrace"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
PROFILES = sorted((CHART / "ci").glob("*-values.yaml"))


def merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: merged(below.get(key), above.get(key, below.get(key))) for key in below | above}
    return above


def test_its_values_keep_their_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_keeps_the_schema(profile: Path) -> None:
    jsonschema.validate(merged(VALUES, yaml.safe_load(profile.read_text())), SCHEMA)


OPTIONAL = {"limits"}
"""Secrets that a service also runs without."""


def test_every_service_is_in_it() -> None:
    assert list(VALUES["services"]) == list(SERVICES)
    assert {name for name, service in VALUES["services"].items() if service.get("http")} == set(HTTP_SERVICES)


def test_what_scales_a_service_is_what_its_group_reads() -> None:
    for name, service in VALUES["services"].items():
        assert tuple(service.get("triggers", ())) == (GROUPS.get(name, ()) if name != "meter" else ())


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_given_the_secrets_its_settings_class_requires(name: str) -> None:
    known = helm.settings_of(f"millrace_{name}").model_fields
    required = {field for field, info in known.items() if info.is_required()}
    given = set(VALUES["services"][name].get("secrets", []))
    assert required == given - OPTIONAL
    assert given <= set(known)


GOOD: Any = {
    "kind": "Deployment",
    "spec": {
        "template": {
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [],
                "containers": [
                    {
                        "image": "millrace:0.1.0",
                        "args": ["millrace_matcher"],
                        "env": [{"name": "MILLRACE_KAFKA", "value": "k:1"}],
                        "securityContext": {
                            "readOnlyRootFilesystem": True,
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
                        "startupProbe": {"httpGet": {"path": "/livez"}},
                        "livenessProbe": {"httpGet": {"path": "/livez"}},
                        "readinessProbe": {"httpGet": {"path": "/readyz"}},
                    }
                ],
            }
        }
    },
}


def test_the_check_lets_a_good_workload_pass() -> None:
    assert list(helm.check_workload(GOOD)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("automountServiceAccountToken",), True),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "capabilities"), {"add": ["NET_ADMIN"]}),
        (("containers", 0, "resources", "limits"), {}),
        (("containers", 0, "image"), "millrace:latest"),
        (("containers", 0, "image"), "registry:5000/millrace"),
        (("containers", 0, "readinessProbe"), {"httpGet": {"path": "/livez"}}),
        (("containers", 0, "livenessProbe"), {}),
        (("containers", 0, "env"), [{"name": "MILLRACE_KAFKAA", "value": "k:1"}]),
        (("containers", 0, "args"), ["millrace_dispatcher"]),
    ],
)
def test_the_check_finds_a_bad_workload(path: tuple[Any, ...], value: Any) -> None:
    workload = copy.deepcopy(GOOD)
    at = workload["spec"]["template"]["spec"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert list(helm.check_workload(workload))


def test_the_check_finds_a_misspelt_member_and_a_topic_nobody_reads() -> None:
    typo = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portss": []}}
    assert list(helm.problems_of([typo], "1.37"))
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "x"},
            "spec": {"groups": [{"name": "x", "rule": []}]}}  # fmt: skip
    assert list(helm.problems_of([rule], "1.37"))
    scaled = {
        "spec": {"triggers": [{"metadata": {"consumerGroup": "millrace.ns.matcher", "topic": "millrace.events.v1"}}]}
    }
    assert list(helm.check_scaling(scaled))
    scaled["spec"]["triggers"][0]["metadata"]["topic"] = "millrace.ns.events.v1"
    assert list(helm.check_scaling(scaled)) == []
