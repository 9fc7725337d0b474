"""From an answer, or none, to what happens next."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace_core import limits
from millrace_core.messages import ErrorInfo
from millrace_dispatcher import outcome
from millrace_dispatcher.outcome import Decision

NOW = 1_800_000_000_000
SCHEDULE = limits.WEBHOOK_RETRY_SCHEDULE_S


def of_status(status: int, *, attempt: int = 1, retry_after: str | None = None, delivery: str = "dlv_1") -> Decision:
    return outcome.of_status(
        status, delivery=delivery, attempt=attempt, now_ms=NOW, schedule_s=SCHEDULE, retry_after=retry_after
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_only_2xx_is_success(status: int) -> None:
    assert of_status(status) == Decision("succeeded")


@pytest.mark.parametrize(
    "status", [301, 302, 304, 307, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 599]
)
def test_anything_else_is_tried_again(status: int) -> None:
    decision = of_status(status)
    assert decision.outcome == "retrying"
    assert decision.error is not None
    assert decision.error.code == f"http_{status}"
    assert decision.error.retryable


def test_gone_ends_the_delivery_at_once() -> None:
    decision = of_status(410, retry_after="5")
    assert (decision.outcome, decision.retry_at) == ("failed", None)
    assert decision.error is not None
    assert not decision.error.retryable


def test_a_redirect_says_what_to_do() -> None:
    error = of_status(302).error
    assert error is not None
    assert "give its final URL" in error.message


@pytest.mark.parametrize("attempt", range(1, len(SCHEDULE) + 1))
def test_the_schedule_holds_within_its_jitter(attempt: int) -> None:
    decision = of_status(500, attempt=attempt)
    assert decision.retry_at is not None
    wait_s = (decision.retry_at - NOW) / 1000
    assert SCHEDULE[attempt - 1] * 0.9 - 0.001 <= wait_s <= SCHEDULE[attempt - 1] * 1.1


def test_after_the_schedule_comes_the_end() -> None:
    assert of_status(500, attempt=len(SCHEDULE) + 1).outcome == "failed"
    assert (
        outcome.of_error(ErrorInfo("timeout", "x"), delivery="d", attempt=1, now_ms=NOW, schedule_s=()).outcome
        == "failed"
    )


@given(st.text(), st.integers(1, 8))
def test_a_repeat_of_the_same_attempt_decides_the_same(delivery: str, attempt: int) -> None:
    assert of_status(500, attempt=attempt, delivery=delivery) == of_status(500, attempt=attempt, delivery=delivery)


def test_what_failed_together_does_not_come_back_together() -> None:
    retries = {of_status(500, attempt=4, delivery=f"dlv_{n}").retry_at for n in range(1000)}
    assert len(retries) > 900


def test_retry_after_moves_the_retry_back_and_never_forward() -> None:
    assert of_status(429, retry_after="60").retry_at == NOW + 60_000
    soon = of_status(429, retry_after="1").retry_at
    assert soon is not None
    assert soon >= NOW + 4_500
    assert of_status(503, retry_after="99999999999").retry_at == NOW + int(limits.WEBHOOK_RETRY_AFTER_S_MAX * 1000)


def test_retry_after_as_a_date() -> None:
    at = datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(minutes=2)
    assert of_status(429, retry_after=format_datetime(at, usegmt=True)).retry_at == NOW + 120_000
    past = at - timedelta(days=1)
    assert outcome.retry_after_s(format_datetime(past, usegmt=True), now_ms=NOW) == 0


@given(st.one_of(st.none(), st.text(max_size=60), st.integers().map(str)))
def test_no_retry_after_can_do_harm(written: str | None) -> None:
    assert 0 <= outcome.retry_after_s(written, now_ms=NOW) <= limits.WEBHOOK_RETRY_AFTER_S_MAX
