"""The scheduler's time under wrong wall clocks. One rule: a jump over 30 s needs the broker's word."""

from millrace_core.clock import ManualClock
from millrace_core.steady_clock import SteadyClock

HOUR_S = 3_600


def confirmed() -> tuple[SteadyClock, ManualClock]:
    wall = ManualClock()
    clock = SteadyClock(wall)
    clock.broker_said(wall.now_ms())
    return clock, wall


def test_it_is_doubted_until_the_broker_spoke() -> None:
    clock = SteadyClock(ManualClock())
    assert clock.is_doubted
    clock.broker_said(clock.now_ms() + 20)
    assert not clock.is_doubted


def test_between_readings_time_goes_on_by_the_monotonic_clock() -> None:
    clock, wall = confirmed()
    before_ms = clock.now_ms()
    wall.advance(2)
    wall.jump(-HOUR_S)
    assert clock.now_ms() == before_ms + 2_000


def test_a_small_correction_is_followed() -> None:
    clock, wall = confirmed()
    wall.jump(-7)
    clock.read()
    assert (clock.now_ms(), clock.is_doubted) == (wall.now_ms(), False)


def test_many_small_corrections_are_one_jump() -> None:
    clock, wall = confirmed()
    before_ms = clock.now_ms()
    for _ in range(5):
        wall.jump(20)
        clock.read()
    assert clock.now_ms() == before_ms + 20_000
    assert clock.is_doubted


def test_a_jump_is_taken_when_the_broker_agrees() -> None:
    clock, wall = confirmed()
    wall.jump(HOUR_S)  # the machine slept: its monotonic clock stood still
    before_ms = clock.now_ms()
    clock.read()
    assert clock.is_doubted
    assert clock.now_ms() == before_ms
    clock.broker_said(wall.now_ms() - 500)
    assert (clock.now_ms(), clock.is_doubted) == (wall.now_ms(), False)


def test_a_jump_is_refused_when_the_broker_disagrees() -> None:
    clock, wall = confirmed()
    right_ms = wall.now_ms()
    wall.jump(-HOUR_S)
    clock.read()
    clock.broker_said(right_ms + 40)
    assert (clock.now_ms(), clock.is_doubted) == (right_ms, False)
    clock.read()
    assert (clock.now_ms(), clock.is_doubted) == (right_ms, True)


def test_a_wall_clock_that_was_set_right_again_is_believed_at_once() -> None:
    clock, wall = confirmed()
    wall.jump(HOUR_S)
    clock.read()
    wall.jump(-HOUR_S)
    clock.broker_said(wall.now_ms())
    clock.read()
    assert (clock.now_ms(), clock.is_doubted) == (wall.now_ms(), False)


def test_a_machine_that_starts_with_a_wrong_clock_takes_the_brokers_time() -> None:
    wall = ManualClock()
    clock = SteadyClock(wall)
    clock.broker_said(wall.now_ms() + HOUR_S * 1_000)
    assert clock.now_ms() == wall.now_ms() + HOUR_S * 1_000
    wall.advance(10)
    assert clock.now_ms() == wall.now_ms() + HOUR_S * 1_000
