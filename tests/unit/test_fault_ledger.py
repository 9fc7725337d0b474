"""What the table of faults keeps of several runs of one cell."""

from tests.fault.arena import Verdict
from tests.fault.ledger import Run, kept


def run(seed: int, *, on: str = "matcher", lost: int = 0, events: int = 1) -> Run:
    return Run("SIGKILL", on, seed, 1.0, Verdict(events, lost=lost, recovery_s=1.0))


def test_seeds_stand_side_by_side() -> None:
    assert kept([run(1), run(1, on="api")], run(2)) == [run(1, on="api"), run(1), run(2)]


def test_the_latest_run_of_a_seed_stands() -> None:
    assert kept([run(1, lost=1), run(2)], run(1, events=9)) == [run(2), run(1, events=9)]


def test_of_more_than_three_the_oldest_makes_room() -> None:
    assert kept([run(7), run(1), run(2)], run(3)) == [run(1), run(2), run(3)]


def test_one_that_did_not_hold_stands_until_its_seed_runs_again() -> None:
    assert kept([run(7, lost=1), run(1), run(2)], run(3)) == [run(7, lost=1), run(2), run(3)]
