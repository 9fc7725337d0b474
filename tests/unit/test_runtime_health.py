"""Readiness is what every part says of its own progress."""

from millrace_runtime.health import Health


def test_not_ready_before_it_has_started_nor_when_it_drains() -> None:
    health = Health()
    assert health.reasons() == {"service": "starting"}
    health.started()
    assert health.reasons() == {}
    health.draining()
    health.started()
    assert health.reasons() == {"service": "draining"}


def test_each_part_speaks_for_itself() -> None:
    def broken() -> str | None:
        raise RuntimeError("no")

    health = Health()
    health.started()
    health.add("a", lambda: None)
    health.add("b", lambda: "lags")
    health.add("c", broken)
    assert health.reasons() == {"b": "lags", "c": "RuntimeError: no"}
    health.add("b", lambda: None)
    assert set(health.reasons()) == {"c"}
