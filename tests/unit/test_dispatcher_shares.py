"""How much of the dispatcher one account may fill."""

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core import limits
from millrace_dispatcher.shares import Shares

PART = ("deliveries", 0)
LATER = limits.OVERFLOW_AFTER_S


def fill(shares: Shares, account: str, *, part: tuple[str, int] = PART) -> int:
    """Take until it is over; how much that was."""
    taken = 0
    while not shares.is_excess(part, account, LATER):
        shares.take(part, account, 0.0)
        taken += 1
        assert taken < 10_000
    return taken


def test_one_account_takes_half_and_the_next_half_of_the_rest() -> None:
    shares = Shares(room=10_000, partition_room=500)
    assert [fill(shares, account) for account in "abcde"] == [250, 125, 63, 31, 16]


def test_an_account_s_many_partitions_do_not_fill_the_whole() -> None:
    shares = Shares(room=1500, partition_room=500)
    assert sum(fill(shares, "a", part=("deliveries", n)) for n in range(12)) == 750
    assert fill(shares, "b") > 0


def test_who_is_quick_may_fill_it() -> None:
    shares = Shares(room=100, partition_room=10)
    for n in range(1000):
        assert not shares.is_excess(PART, "a", n / 100)
        shares.take(PART, "a", n / 100)
        if n >= 40:
            shares.done(PART, "a")
    assert shares.is_excess(PART, "a", 10.0 + LATER)


def test_who_does_little_in_half_a_second_is_slow_at_once() -> None:
    shares = Shares(room=100, partition_room=50)
    for _ in range(40):
        shares.take(PART, "slow", 0.0)
        shares.take(PART, "quick", 0.0)
    for _ in range(3):
        shares.done(PART, "slow")
    for _ in range(5):
        shares.done(PART, "quick")
        shares.take(PART, "quick", 0.0)
    assert not shares.is_excess(PART, "slow", limits.OVERFLOW_SOON_S - 0.01)
    assert shares.is_excess(PART, "slow", limits.OVERFLOW_SOON_S), "37 left, 6 a second"
    assert not shares.is_excess(PART, "quick", limits.OVERFLOW_SOON_S), "40 left, 10 a second"


def test_what_was_moved_does_not_count_as_done() -> None:
    shares = Shares(room=100, partition_room=50)
    for _ in range(40):
        shares.take(PART, "slow", 0.0)
    for _ in range(15):
        shares.left(PART, "slow")
    assert shares.is_excess(PART, "slow", limits.OVERFLOW_SOON_S)


def test_what_is_done_makes_room_again() -> None:
    shares = Shares(room=100, partition_room=10)
    assert fill(shares, "a") == 5
    shares.done(PART, "a")
    assert fill(shares, "a") == 1
    shares.done(PART, "never")
    shares.done(("deliveries", 9), "a")
    assert shares.is_excess(PART, "a", LATER)
    shares.forget(PART)
    shares.done(PART, "a")
    assert fill(shares, "a") == 5


@given(st.lists(st.tuples(st.sampled_from(["take", "done", "forget"]), st.integers(0, 2), st.sampled_from("abc"))))
@settings(max_examples=200)
def test_the_count_is_right_whatever_happens(steps: list[tuple[str, int, str]]) -> None:
    shares, model = Shares(room=50, partition_room=20), dict[tuple[int, str], int]()
    for what, number, account in steps:
        part = ("deliveries", number)
        if what == "take":
            shares.take(part, account, 0.0)
            model[number, account] = model.get((number, account), 0) + 1
        elif what == "done":
            shares.done(part, account)
            model[number, account] = max(0, model.get((number, account), 0) - 1)
        else:
            shares.forget(part)
            model = {key: count for key, count in model.items() if key[0] != number}
        assert shares._all.total == sum(model.values())
        assert {a: n for a, n in shares._all.by_account.items() if n} == {
            a: n for a in "abc" if (n := sum(count for (_, own), count in model.items() if own == a))
        }
