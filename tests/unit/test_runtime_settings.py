"""Settings come from the environment alone, and a wrong one is a line that shows no value."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from millrace_core.errors import Fatal
from millrace_kafka.topics import PROJECTED, PROJECTED_DAYS_MAX
from millrace_projector.handlers import TOPICS
from millrace_runtime.settings import HttpSettings, PostgresSettings, RetentionSettings, ServiceSettings, read


class Whole(ServiceSettings, PostgresSettings, HttpSettings):
    pass


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA", "NAMESPACE", "POSTGRES", "OPS_PORT", "HTTP_PORT", "INSTANCE", "LOG_LEVEL"):
        monkeypatch.delenv(f"MILLRACE_{name}", raising=False)


def test_defaults_are_for_one_machine() -> None:
    settings = read(ServiceSettings)
    assert settings.kafka == "127.0.0.1:9092"
    assert settings.ops_host == "127.0.0.1"
    assert settings.instance


def test_variables_are_read_and_empty_ones_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_KAFKA", "broker:1")
    monkeypatch.setenv("MILLRACE_OPS_PORT", "")
    monkeypatch.setenv("MILLRACE_UNKNOWN", "x")
    assert (read(ServiceSettings).kafka, read(ServiceSettings).ops_port) == ("broker:1", 0)


def test_a_missing_secret_names_its_variable() -> None:
    with pytest.raises(Fatal, match="MILLRACE_POSTGRES"):
        read(Whole)


def test_a_secret_may_be_a_file_and_the_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "millrace_postgres").write_text("postgres://from-file")
    assert read(Whole, secrets_dir=tmp_path).postgres == SecretStr("postgres://from-file")
    monkeypatch.setenv("MILLRACE_POSTGRES", "postgres://from-env")
    assert read(Whole, secrets_dir=tmp_path).postgres == SecretStr("postgres://from-env")


def test_a_wrong_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_POSTGRES", "postgres://u:hunter2@h/d")
    monkeypatch.setenv("MILLRACE_OPS_PORT", "hunter2")
    with pytest.raises(Fatal) as raised:
        read(Whole)
    assert "MILLRACE_OPS_PORT" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_read_models_are_kept_no_longer_than_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    outlive = {"control", "receipt-roots", "receipt-leaves", "audit"}
    assert set(PROJECTED) == set(TOPICS) - outlive, "what the projector reads is what the bound is made of"
    assert read(RetentionSettings).retention_days <= PROJECTED_DAYS_MAX
    monkeypatch.setenv("MILLRACE_RETENTION_DAYS_MAX", str(PROJECTED_DAYS_MAX + 1))
    with pytest.raises(Fatal, match=r"MILLRACE_RETENTION_DAYS_MAX.*the log keeps"):
        read(RetentionSettings)


def test_new_accounts_keep_no_more_than_any_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_RETENTION_DAYS", "9")
    monkeypatch.setenv("MILLRACE_RETENTION_DAYS_MAX", "8")
    with pytest.raises(Fatal, match="less than MILLRACE_RETENTION_DAYS"):
        read(RetentionSettings)
    monkeypatch.setenv("MILLRACE_RETENTION_DAYS", "2")
    with pytest.raises(Fatal, match="MILLRACE_RETENTION_DAYS:"):
        read(RetentionSettings)
