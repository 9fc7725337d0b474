"""Log lines hold what happened and no secret."""

import logging as standard

import orjson
import pytest
import structlog

from millrace_runtime import logging
from millrace_runtime.logging import REDACTED, clean_text, redact


@pytest.mark.parametrize(
    "name", ["authorization", "Authorization", "password", "key_pepper", "api_key", "secret", "secrets", "dsn", "token"]
)
def test_members_with_a_secrets_name_are_replaced(name: str) -> None:
    assert redact(None, "", {name: "x"})[name] == REDACTED
    assert redact(None, "", {"inner": {name: ["x"]}})["inner"][name] == REDACTED


def test_other_members_stay() -> None:
    event = {"event": "a.b", "key_id": "key_1", "n": 5, "ratio": 0.5, "ok": True, "none": None, "list": ["a", 1]}
    assert redact(None, "", dict(event)) == event


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Authorization: Bearer abcdefghijkl and more", f"Authorization: Bearer {REDACTED} and more"),
        ("key mr_live_abcDEF-_123.", f"key mr_live_{REDACTED}."),
        ("whsec_abc/def+ghi=", f"whsec_{REDACTED}"),
        ("postgres://user:pa%20ss@host/db", f"postgres://user:{REDACTED}@host/db"),
        ("http://host/path", "http://host/path"),
    ],
)
def test_credentials_inside_text_are_cut_out(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_long_text_is_cut() -> None:
    assert len(clean_text("x" * 100_000)) < 5_000


def test_lines_are_json_and_libraries_speak_the_same_way(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = standard.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    try:
        log = logging.configure("test", instance="i", level="info")
        log.info("thing.done", n=1, odd="\ud800")
        log.debug("not.shown")
        standard.getLogger("library").warning("100%% of %s", "Bearer abcdefghijkl")
        try:
            raise RuntimeError("password=1 postgres://u:p@h")
        except RuntimeError:
            log.exception("thing.failed")
    finally:
        root.setLevel(level)
        structlog.reset_defaults()  # what it was given to write to is closed after this test
    lines = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["thing.done", "library.said", "thing.failed"]
    assert lines[1]["message"] == f"100% of Bearer {REDACTED}"
    assert lines[1]["logger"] == "library"
    assert "u:p@" not in lines[2]["exception"]
    assert {line["service"] for line in lines} == {"test"}
    assert lines[0]["odd"] == "\\ud800"
