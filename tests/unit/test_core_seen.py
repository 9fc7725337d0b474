"""The window of source offsets, case by case."""

from millrace_core.record import Source
from millrace_core.seen import SourceWindow


def at(offset: int, partition: int = 0) -> Source:
    return Source("events", partition, offset)


def test_an_id_belongs_to_the_record_that_brought_it() -> None:
    window = SourceWindow(offsets=10)
    assert window.check(at(5), "run_a", 100) == "new"
    window.add(at(5), "run_a", 100)
    assert window.check(at(5), "run_a", 100) == "new", "the same record, read again after a crash"
    assert window.check(at(5), "run_a", 101) == "repeat"
    assert window.check(at(5), "run_b", 101) == "new", "another id of the same event"


def test_what_lies_below_the_window_is_stale() -> None:
    window = SourceWindow(offsets=10)
    window.add(at(20), "run_a", 0)
    assert window.check(at(11), "run_b", 1) == "new"
    assert window.check(at(10), "run_b", 1) == "stale"
    assert window.check(at(10, partition=1), "run_b", 1) == "new", "each source partition has its own window"


def test_an_id_is_forgotten_with_its_offset_and_is_stale_then() -> None:
    window = SourceWindow(offsets=10)
    window.add(at(1), "run_a", 0)
    window.add(at(2), "run_b", 1)
    window.add(at(11), "run_c", 2)
    assert window.check(at(1), "run_a", 3) == "stale"
    assert window.check(at(2), "run_b", 3) == "repeat"
    assert len(window) == 2


def test_a_gap_in_offsets_costs_nothing() -> None:
    window = SourceWindow(offsets=10)
    window.add(at(1), "run_a", 0)
    window.add(at(10**15), "run_b", 1)
    assert len(window) == 1
    assert window.check(at(10**15 - 10), "run_a", 2) == "stale"


def test_adding_below_the_window_is_not_remembered() -> None:
    window = SourceWindow(offsets=10)
    window.add(at(100), "run_a", 0)
    window.add(at(1), "run_b", 1)
    assert len(window) == 1


def test_the_lowest_own_offset_keeps_the_claim() -> None:
    window = SourceWindow(offsets=10)
    window.add(at(5), "run_a", 100)
    window.add(at(5), "run_a", 102)
    window.add(at(6), "run_a", 99)
    assert window.check(at(5), "run_a", 99) == "new"
    assert window.check(at(5), "run_a", 100) == "repeat"


def test_a_window_that_could_not_be_rebuilt_whole_takes_nothing_older_for_new() -> None:
    window = SourceWindow(offsets=10_000)
    for offset in range(50, 60):
        window.add(Source("events", 0, offset), f"id-{offset}", offset)
    assert window.check(Source("events", 0, 40), "id-40", 99) == "new"
    window.cut()
    assert window.check(Source("events", 0, 40), "id-40", 99) == "stale"
    assert window.check(Source("events", 0, 55), "id-55", 99) == "repeat"
    assert window.check(Source("events", 0, 55), "another", 99) == "new"
    assert window.check(Source("events", 0, 61), "id-61", 99) == "new"
