"""The window against the whole history it stands for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.record import Source
from millrace_core.seen import SourceWindow

WINDOW = 8
LOG = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.sampled_from("abcd")), max_size=60)


@settings(max_examples=300)
@given(LOG)
def test_an_id_within_the_window_begins_once(log: list[tuple[int, int, str]]) -> None:
    """Each (source, id) that never falls below the window is new exactly once, and never stale."""
    window = SourceWindow(offsets=WINDOW)
    highest = {0: -1, 1: -1}
    had: dict[tuple[int, str], int] = {}  # in which source offset the window holds it
    for own, (partition, offset, name) in enumerate(log):
        source, id = Source("events", partition, offset), f"{name}{offset}"
        verdict = window.check(source, id, own)
        floor = highest[partition] - WINDOW + 1
        if (partition, id) in had and had[partition, id] >= floor:
            assert verdict == "repeat"
        elif offset < floor:
            assert verdict == "stale"
        else:
            assert verdict == "new"
            window.add(source, id, own)
            had[partition, id] = offset
        highest[partition] = max(highest[partition], offset if verdict == "new" else highest[partition])
    assert len(window) <= 2 * WINDOW * 4


@settings(max_examples=200)
@given(LOG, st.integers(0, 60))
def test_rebuilt_from_the_log_it_says_the_same(log: list[tuple[int, int, str]], cut: int) -> None:
    """A window built by reading the log again answers as the one that lived on."""
    lived, rebuilt = SourceWindow(offsets=WINDOW), SourceWindow(offsets=WINDOW)
    for own, (partition, offset, name) in enumerate(log[:cut]):
        source, id = Source("events", partition, offset), f"{name}{offset}"
        for window in (lived, lived, rebuilt):
            if window.check(source, id, own) == "new":
                window.add(source, id, own)
    for own, (partition, offset, name) in enumerate(log[cut:], start=cut):
        source, id = Source("events", partition, offset), f"{name}{offset}"
        assert lived.check(source, id, own) == rebuilt.check(source, id, own)
