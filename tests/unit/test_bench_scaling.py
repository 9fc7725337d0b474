"""The bench's model of how a service grows: the process with the most partitions is full first."""

import pytest

from tests.bench.scaling import modelled


def test_a_process_more_helps_only_when_it_takes_a_partition_from_the_fullest() -> None:
    rates = [modelled(n, partitions=4, event_us=100, rest=0.0) for n in range(1, 6)]
    assert rates == [10_000, 20_000, 20_000, 40_000, 40_000]


def test_what_is_taken_at_rest_is_not_there_for_events() -> None:
    assert modelled(1, partitions=1, event_us=100, rest=0.25) == pytest.approx(7_500)
