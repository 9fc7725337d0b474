"""What a batch held, by account: one small record for the meter, so that it need not see every event.

Written after the batch and not waited for: a crash may lose or repeat it, and the meter's figures say so.
"""

from collections.abc import Sequence

from millrace_core import record
from millrace_core.messages import Tally, encode
from millrace_core.record import Output, Received, source_of

TALLIES = "tallies"


class Tallies:
    """The counts of one batch."""

    __slots__ = ("_accounts",)

    def __init__(self) -> None:
        self._accounts: dict[str, dict[str, list[int]]] = {}

    def add(self, account: str, identifier: str, runs: int, deliveries: int) -> None:
        """One event, and what it came to. Duplicates are not counted: they are no events of their own."""
        identifiers = self._accounts.get(account)
        if identifiers is None:
            identifiers = self._accounts[account] = {}
        counts = identifiers.get(identifier)
        if counts is None:
            counts = identifiers[identifier] = [0, 0, 0]
        counts[0] += 1
        counts[1] += runs
        counts[2] += deliveries

    def outputs(self, records: Sequence[Received]) -> list[Output]:
        """`tallies`: one record for each account, dated by the batch's last record."""
        return [
            Output(
                TALLIES,
                account.encode(),
                encode(
                    Tally(
                        account=account,
                        at=records[-1].timestamp,
                        counts=tuple((identifier, *counts) for identifier, counts in identifiers.items()),  # type: ignore[misc]
                    )
                ),
                ((record.ACCOUNT, account.encode()), (record.SOURCE, source_of(records[-1]))),
            )
            for account, identifiers in self._accounts.items()
        ]
