"""Progress of a partition that is worked on out of order: nothing lost, nothing repeated, and it always fits."""

import random

import pytest

from millrace_core import limits
from millrace_kafka.progress import Mark, Progress, decode, encode


@pytest.mark.parametrize("seed", range(200))
def test_a_next_life_repeats_exactly_what_was_open(seed: int) -> None:
    chance = random.Random(seed)
    progress, offset, is_open, done = Progress(100, Mark()), 100, [], set()
    for _ in range(chance.randrange(5, 400)):
        if chance.random() < 0.6 and not progress.is_full():
            offset += chance.choice((0, 0, 0, 1, 2))  # markers and deleted records leave gaps
            assert progress.taken(offset)
            is_open.append(offset)
            offset += 1
        elif is_open:
            finished = is_open.pop(chance.randrange(len(is_open)))
            progress.finished(finished)
            done.add(finished)
    mark = progress.mark(is_clean=False)
    again = Progress(progress.position, decode(progress.position, encode(progress.position, mark)))
    repeated = {at for at in sorted(done | set(is_open)) if at >= progress.position and again.taken(at)}
    assert repeated == set(is_open)
    assert progress.position == min(is_open, default=progress.next)


def test_the_metadata_fits_in_the_worst_order() -> None:
    progress, offset = Progress(0, Mark()), 0
    longest = 0
    while offset < 60_000:
        if not progress.is_full():
            progress.taken(offset)
        offset += 1
        progress.taken(offset)
        progress.finished(offset)
        offset += 1
        if offset % 1_000 == 0:
            longest = max(longest, len(encode(progress.position, progress.mark(is_clean=True))))
    assert longest <= limits.COMMIT_METADATA_BYTES_MAX


def test_no_life_is_full_before_it_has_begun() -> None:
    progress, offset = Progress(0, Mark()), 0
    while not progress.is_full():
        progress.taken(offset)
        progress.taken(offset + 1)
        progress.finished(offset + 1)
        offset += 2
    again = Progress(0, progress.mark(is_clean=False))
    assert not again.is_full()
    again.taken(0)
    assert len(encode(0, again.mark(is_clean=False))) <= limits.COMMIT_METADATA_BYTES_MAX


def test_a_record_that_blocks_for_long_costs_one_range() -> None:
    progress = Progress(0, Mark())
    for offset in range(100_000):
        progress.taken(offset)
        if offset:
            progress.finished(offset)
    assert progress.mark(is_clean=False).done == ((1, 100_000),)
    assert not progress.is_full()


def test_the_position_passes_markers_when_nothing_is_open() -> None:
    progress = Progress(7, Mark())
    progress.passed(9)
    assert progress.position == 9
    progress.taken(10)
    progress.passed(20)
    assert progress.position == 10


def test_what_an_earlier_life_finished_beyond_what_was_read_is_kept() -> None:
    progress = Progress(10, Mark(done=((12, 15),)))
    assert progress.taken(10)
    assert progress.mark(is_clean=False).done == ((12, 15),)
    progress.taken(11)
    assert not progress.taken(12)
    progress.finished(10)
    assert progress.mark(is_clean=False).done == ((12, 15),)
    progress.finished(11)
    assert progress.position == 13


def test_how_often_it_was_begun_alone_is_over_when_it_is_finished_not_when_a_gap_is_passed() -> None:
    progress = Progress(5, Mark(is_clean=False, alone=2))
    progress.taken(7)
    assert (progress.position, progress.alone) == (7, 2)
    progress.finished(7)
    assert progress.alone == 0


@pytest.mark.parametrize("metadata", ["", "x", "1:zz:", "2:00:", "1:00:!!", "someone else's metadata: 1:2:3"])
def test_foreign_metadata_says_nothing(metadata: str) -> None:
    assert decode(5, metadata) == Mark()
