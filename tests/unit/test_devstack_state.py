"""What `make dev` keeps between runs: secrets, ports, and the claim to be the one runner."""

import json
import socket
import stat
from pathlib import Path

import pytest

from millrace_devstack import ports, space
from millrace_devstack.errors import StackError
from millrace_devstack.options import Options
from millrace_devstack.state import Home


def test_secrets_are_made_once_and_kept_for_their_owner_alone(tmp_path: Path) -> None:
    first = Home(tmp_path).secrets()
    assert Home(tmp_path).secrets() == first
    assert first.keys["ops"]["secret"].startswith("os_live_")
    assert all(len(first.keys[name].split("_live_")[-1]) == 43 for name in ("ingest", "automation", "intake", "agents"))
    for name in ("secrets.json", "keys.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert json.loads((tmp_path / "keys.json").read_text()) == first.keys


def test_damaged_secrets_are_refused_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(StackError, match=r"secrets\.json is damaged.*make clean"):
        Home(tmp_path).secrets()
    assert (tmp_path / "secrets.json").read_text() == "{"


def test_ports_are_kept_and_differ(tmp_path: Path) -> None:
    first = Home(tmp_path).choose_ports(["kafka", "gateway.http"], front=None)
    assert len(set(first.values())) == 3
    assert Home(tmp_path).choose_ports(["kafka", "gateway.http"], front=None) == first


def test_a_kept_port_that_was_taken_meanwhile_is_given_up(tmp_path: Path) -> None:
    first = Home(tmp_path).choose_ports(["kafka"], front=None)
    with socket.create_server(("127.0.0.1", first["kafka"])):
        second = Home(tmp_path).choose_ports(["kafka"], front=None)
    assert second["kafka"] != first["kafka"]
    assert second["front"] == first["front"]


def test_a_front_port_asked_for_and_taken_names_its_holder_and_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"port {port}.*taken by .*\(pid \d+\).*MILLRACE_DEV_PORT"):
            Home(tmp_path).choose_ports([], front=port)


def test_one_runner_at_a_time(tmp_path: Path) -> None:
    with Home(tmp_path).exclusive():
        with pytest.raises(StackError, match=r"running already \(pid \d+\)"), Home(tmp_path).exclusive():
            pass
        with pytest.raises(StackError, match="running already"):
            Home(tmp_path).require_stopped()
    Home(tmp_path).require_stopped()


def test_what_a_dead_runner_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "dev.lock").write_text("4194304")
    (tmp_path / "dev.json").write_text("{}")
    with Home(tmp_path).exclusive():
        assert not (tmp_path / "dev.json").exists()


def test_a_full_disk_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="MiB free, Kafka wants"):
        space.require_space(tmp_path, what="Kafka", free_bytes_min=1 << 60)


def test_a_port_nobody_holds_is_free() -> None:
    ports.require_free(ports.free_port(), what="nothing", fix="none needed")


def test_no_outgoing_connection_can_take_a_servers_port() -> None:
    # A client that asks and asks for a server that is down would meet itself there in the end, and keep the port.
    assert max(ports.free_port() for _ in range(200)) < ports.outgoing_first()


def test_a_port_setting_that_is_no_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_DEV_PORT", "http")
    with pytest.raises(StackError, match="give a port number"):
        Options.from_environment()
