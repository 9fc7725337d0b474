"""How long the projector lets a batch grow."""

import pytest

from millrace_core import limits
from millrace_projector.processor import gather_s

FULL = limits.PROJECTOR_GATHER_FULL_PER_S
LEAST = limits.PROJECTOR_GATHER_SHARE_MIN


@pytest.mark.parametrize(
    ("per_s", "share"), [(0, LEAST), (FULL * LEAST / 2, LEAST), (FULL / 2, 0.5), (FULL, 1.0), (10 * FULL, 1.0)]
)
def test_the_pause_grows_with_the_rate_between_its_bounds(per_s: float, share: float) -> None:
    assert gather_s(0.25, per_s) == pytest.approx(0.25 * share)


def test_no_pause_stays_none() -> None:
    assert gather_s(0.0, FULL) == 0.0
