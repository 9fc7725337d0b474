"""Which windows are open, what the closed ones tell, and what is shown of them."""

import pytest

from millrace_core.errors import Reject
from millrace_core.messages import Meter, Tally, decode, encode
from millrace_meter.handlers import counted, meter_output
from millrace_meter.windows import Counts, Key, LastWindow, OpenWindows, Shown

T = 1_800_000_000_000
COUNTS: dict[tuple[int, Key], Counts] = {
    (T, ("a", "e:x/1")): (3, 1, 2),
    (T, ("a", "e:x/2")): (1, 0, 0),
    (T + 10_000, ("a", "e:x/1")): (5, 0, 0),
}


def look_up(start: int, key: Key) -> Counts | None:
    return COUNTS.get((start, key))


def meter(start: int = T, events: int = 1, account: str = "a", identifier: str = "e:x/1") -> Meter:
    return Meter(
        account=account, identifier=identifier, start=start, end=start + 10_000, events=events, runs=0, deliveries=0
    )


def test_a_window_closes_a_grace_after_its_end_and_once() -> None:
    windows = OpenWindows()
    windows.touch(T, ("a", "e:x/1"))
    windows.touch(T + 9_999, ("a", "e:x/2"))
    windows.touch(T + 10_000, ("a", "e:x/1"))
    windows.touch(T + 5, ("a", "lost"))
    assert windows.close(T + 11_999, look_up) == []
    closed = windows.close(T + 12_000, look_up)
    assert [(one.identifier, one.start, one.end, one.events) for one in closed] == [
        ("e:x/1", T, T + 10_000, 3),
        ("e:x/2", T, T + 10_000, 1),
    ]
    assert windows.close(T + 12_000, look_up) == []
    assert [one.events for one in windows.close(T + 60_000, look_up)] == [5]


def test_what_comes_late_opens_its_window_again() -> None:
    windows = OpenWindows()
    windows.touch(T, ("a", "e:x/1"))
    assert len(windows.close(T + 20_000, look_up)) == 1
    windows.touch(T, ("a", "e:x/1"))
    assert [one.start for one in windows.close(T + 20_000, look_up)] == [T]


def test_the_last_window_is_shown_until_it_is_old() -> None:
    last = LastWindow()
    last.take([meter(T, 3), meter(T + 10_000, 4), meter(T, 9)])
    assert last.series(T + 22_000) == [Shown("a", "e:x/1", (4, 0, 0))]
    assert last.series(T + 42_001) == []


def test_series_have_a_bound_and_the_rest_is_summed() -> None:
    last = LastWindow(series_max=2)
    last.take([meter(events=n, identifier=f"e:x/{n}") for n in (1, 2, 3, 4)] + [meter(account="b", identifier="e:y/1")])
    assert last.series(T + 12_000) == [
        Shown("a", "e:x/4", (4, 0, 0)),
        Shown("a", "e:x/3", (3, 0, 0)),
        Shown("a", "*", (3, 0, 0)),
        Shown("b", "*", (1, 0, 0)),
    ]


def test_a_tally_is_read_whole_or_not_at_all() -> None:
    value = encode(Tally(account="a", at=T, counts=(("e:x/1", 3, 1, 2), ("e:x/2", 1, 0, 0))))
    assert list(counted(value)) == [(("a", "e:x/1"), (3, 1, 2)), (("a", "e:x/2"), (1, 0, 0))]
    for garbage in (None, b"", b"{}", b"\xff", value.replace(b"1,2", b'"x",2')):
        with pytest.raises(Reject):
            list(counted(garbage))


def test_a_closed_window_is_a_record() -> None:
    output = meter_output(meter(events=7))
    assert (output.topic, output.key) == ("meters", b"a")
    assert decode(output.value, Meter) == meter(events=7)
