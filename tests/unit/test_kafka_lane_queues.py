"""Lanes: fair between accounts and endpoints, bounded, in order where asked."""

from collections import Counter

from millrace_kafka.lane_queues import Job, Lane, LaneQueues


def begin_all(queues: LaneQueues[str], count: int = 1_000) -> list[Job[str]]:
    begun: list[Job[str]] = []
    while len(begun) < count and (job := queues.begin()) is not None:
        begun.append(job)
    return begun


def test_a_small_account_waits_for_one_turn_not_for_the_big_ones_queue() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for n in range(1_000):
        queues.add(Lane("big", f"e{n % 7}"), f"big{n}")
    queues.add(Lane("small", "e"), "small")
    assert "small" in [job.what for job in begin_all(queues, 2)]


def test_every_account_begins_as_many() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for account, records in (("a", 900), ("b", 100), ("c", 100)):
        for n in range(records):
            queues.add(Lane(account, f"e{n % 3}"), account)
    assert Counter(job.what for job in begin_all(queues, 300)) == {"a": 100, "b": 100, "c": 100}


def test_the_lanes_of_an_account_take_turns() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for _ in range(100):
        queues.add(Lane("a", "busy"), "busy")
    queues.add(Lane("a", "idle"), "idle")
    assert "idle" in [job.what for job in begin_all(queues, 2)]


def test_an_ordered_lane_runs_one_at_a_time_in_log_order() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for n in range(5):
        queues.add(Lane("a", "k", ordered=True), str(n))
    seen = []
    while (job := queues.begin()) is not None:
        assert queues.begin() is None
        seen.append(job.what)
        queues.over(job)
    assert seen == ["0", "1", "2", "3", "4"]


def test_an_unordered_lane_runs_as_many_as_its_width() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for n in range(10):
        queues.add(Lane("a", "k", concurrency=3), str(n))
    begun = begin_all(queues)
    assert [job.what for job in begun] == ["0", "1", "2"]
    queues.over(begun[1])
    assert [job.what for job in begin_all(queues)] == ["3"]


def test_who_left_its_lane_makes_room_there_and_keeps_the_account_s_place() -> None:
    queues: LaneQueues[str] = LaneQueues(account_max=2)
    for n in range(4):
        queues.add(Lane("a", "k", concurrency=1), str(n))
    (first,) = begin_all(queues)
    assert queues.left(first)
    (second,) = begin_all(queues)
    assert queues.left(second)
    assert begin_all(queues) == [], "two of the account are not over yet"
    queues.over(first)
    (third,) = begin_all(queues)
    queues.over(second)
    assert begin_all(queues) == [], "the lane is taken"
    queues.over(third)
    (fourth,) = begin_all(queues)
    assert not queues.left(fourth), "nobody waits"
    queues.over(fourth)
    assert not queues._accounts


def test_an_ordered_lane_is_left_only_when_the_work_is_over() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for n in range(2):
        queues.add(Lane("a", "k", ordered=True), str(n))
    (first,) = begin_all(queues)
    assert not queues.left(first)
    assert begin_all(queues) == []
    queues.over(first)
    assert [job.what for job in begin_all(queues)] == ["1"]


def test_records_without_a_key_do_not_wait_for_each_other() -> None:
    queues: LaneQueues[str] = LaneQueues()
    for n in range(10):
        queues.add(Lane("a", concurrency=1), str(n))
    assert len(begin_all(queues)) == 10


def test_the_same_key_of_two_accounts_is_two_lanes() -> None:
    queues: LaneQueues[str] = LaneQueues()
    queues.add(Lane("a", "k", ordered=True), "a")
    queues.add(Lane("b", "k", ordered=True), "b")
    assert len(begin_all(queues)) == 2


def test_what_is_void_is_never_begun_and_nothing_is_kept_of_what_is_over() -> None:
    queues: LaneQueues[str] = LaneQueues()
    jobs = [queues.add(Lane("a", "k", ordered=True), str(n)) for n in range(3)]
    jobs[0].is_void = jobs[1].is_void = True
    begun = begin_all(queues)
    assert [job.what for job in begun] == ["2"]
    queues.over(begun[0])
    assert queues.begin() is None
    assert not queues._accounts


def test_a_lane_that_is_held_back_takes_no_one_else_s_turn() -> None:
    until = {"slow": 0.0}
    queues: LaneQueues[str] = LaneQueues(hold=lambda what, _now_s: until.get(what, 0.0))
    for _ in range(3):
        queues.add(Lane("a", "slow"), "slow")
        queues.add(Lane("a", "quick"), "quick")
    until["slow"] = 5.0
    begun = []
    while (job := queues.begin(1.0)) is not None:
        begun.append(job.what)
    assert begun == ["quick"] * 3
    assert queues.held_until == 5.0
    assert queues.begin(4.9) is None
    until["slow"] = 6.0
    assert queues.begin(5.0) is None, "it is asked again, and may answer otherwise"
    assert queues.held_until == 6.0
    assert [job.what for job in (queues.begin(6.0), queues.begin(6.0)) if job] == ["slow", "slow"]


def test_what_is_void_in_a_lane_that_is_held_back_is_never_begun() -> None:
    queues: LaneQueues[str] = LaneQueues(hold=lambda _what, now_s: 1.0 if now_s < 1.0 else 0.0)
    job = queues.add(Lane("a", "k"), "x")
    assert queues.begin(0.0) is None
    job.is_void = True
    assert queues.begin(1.0) is None
    assert queues.held_until is None
    assert not queues._accounts
