"""A trial's figures: peaks, what does not count, what is not decided yet, what could not be read."""

from datetime import UTC, datetime

import pytest

from millrace_api.application.trials import Side, Trial
from millrace_core import ids, limits
from millrace_core.messages import Event, Raw, SubscriptionControl
from millrace_kafka.topics import CATALOGUE

SUB, OTHER = f"sub_{1:032x}", f"sub_{2:032x}"
AT = 1_700_000_040_000  # a full minute


def control(pattern: str = "e:a/*", filter: bytes = b"null", where: str | None = None) -> SubscriptionControl:
    return SubscriptionControl(
        account="acc_1", pattern=pattern, target_kind="endpoint", target_id="we_1", created_at=2 * AT, where=where,
        filter=Raw(filter),
    )  # fmt: skip


def event(at: int = AT, properties: bytes = b'{"n":1}', hops: int = 0) -> Event:
    return Event(
        id=ids.new_id(ids.EVENT), account="acc_1", identifier="e:a/b", received_at=at, hops=hops,
        properties=Raw(properties),
    )  # fmt: skip


def tried(trial: Trial, *events: Event, outcome: str | None = "unmatched") -> Trial:
    for one in events:
        fit = trial.fit(one)
        if fit is not None:
            trial.count(fit, outcome)
    return trial


def test_the_peak_is_of_what_is_started_and_its_first_minute_is_named() -> None:
    times = [AT, AT + 60_000, AT + 119_999, AT + 120_000, AT + 180_000, AT + 180_001]
    trial = tried(Trial(Side(SUB, {SUB: control()})), *(event(at) for at in times))
    assert trial.now.peak == (2, datetime.fromtimestamp(AT / 1000 + 60, UTC))
    assert (trial.now.started, trial.now.bytes) == (6, 6 * 7)
    assert Trial(Side(SUB, {})).now.peak == (0, None)


def test_what_the_endpoint_gets_anyway_costs_nothing_more() -> None:
    both = {SUB: control(), OTHER: control("e:a/b", b'{"n":[1]}')}
    trial = tried(Trial(Side(SUB, both)), event(), event(properties=b'{"n":2}'))
    assert (trial.now.matched, trial.now.anyway, trial.now.started) == (2, 1, 1)
    assert (trial.now.bytes, trial.now.peak[0]) == (7, 1)


@pytest.mark.parametrize("outcome", ["duplicate", "refused", "dead_lettered", "stale"])
def test_what_started_nothing_is_told_by_its_outcome(outcome: str) -> None:
    trial = tried(Trial(Side(SUB, {SUB: control()})), event(), outcome=outcome)
    assert (trial.now.matched, trial.now_only.events, trial.not_counted) == (0, 0, {outcome: 1})


def test_what_is_not_decided_yet_counts_but_for_what_never_will() -> None:
    trial = tried(Trial(Side(SUB, {SUB: control()})), event(), event(hops=limits.HOPS_MAX + 1), outcome=None)
    assert (trial.now.matched, trial.undecided, trial.not_counted) == (1, 1, {"refused": 1})


def test_an_event_that_could_not_be_read_is_said_to_be_a_dead_letter_then() -> None:
    broken = event(properties=b'{"n":1e}')
    trial = tried(Trial(Side(SUB, {SUB: control(filter=b'{"n":[1]}')}), before=Side(SUB, {SUB: control()})), broken)
    assert (trial.unreadable, trial.before_only.events, trial.now.matched) == (1, 1, 0)


def test_of_what_matched_the_first_are_named() -> None:
    events = [event() for _ in range(limits.BACKTEST_SAMPLES_MAX + 3)]
    trial = tried(Trial(Side(SUB, {SUB: control(where="input.n == 1")})), *events)
    assert trial.now_only.events == len(events)
    assert trial.now_only.samples == [one.id for one in events[: limits.BACKTEST_SAMPLES_MAX]]


def test_a_backtest_reaches_back_as_far_as_events_are_kept() -> None:
    assert CATALOGUE["events"].retention_ms == limits.BACKTEST_DAYS_MAX * ids.DAY_MS
