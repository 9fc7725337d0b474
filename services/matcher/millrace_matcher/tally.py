"""What was matched, by account: one small record a second for the meter, so that it need not see every event.

Not waited for: a crash may lose or repeat it, and the meter's figures say so.
"""

from millrace_core import record
from millrace_core.messages import Tally, encode
from millrace_core.record import Output, Received, source_of

TALLIES = "tallies"


class Tallies:
    """The counts since the last `take`."""

    __slots__ = ("_accounts", "_last")

    def __init__(self) -> None:
        self._accounts: dict[str, dict[str, list[int]]] = {}
        self._last: Received | None = None

    def add(self, one: Received, account: str, identifier: str, runs: int, deliveries: int) -> None:
        """One event, and what it came to. Duplicates are not counted: they are no events of their own."""
        self._last = one
        identifiers = self._accounts.get(account)
        if identifiers is None:
            identifiers = self._accounts[account] = {}
        counts = identifiers.get(identifier)
        if counts is None:
            counts = identifiers[identifier] = [0, 0, 0]
        counts[0] += 1
        counts[1] += runs
        counts[2] += deliveries

    def take(self) -> list[Output]:
        """`tallies`: one record for each account, dated by the last event counted."""
        accounts, last = self._accounts, self._last
        if last is None:
            return []
        self._accounts, self._last = {}, None
        return [
            Output(
                TALLIES,
                account.encode(),
                encode(
                    Tally(
                        account=account,
                        at=last.timestamp,
                        counts=tuple((identifier, *counts) for identifier, counts in identifiers.items()),  # type: ignore[misc]
                    )
                ),
                ((record.ACCOUNT, account.encode()), (record.SOURCE, source_of(last))),
            )
            for account, identifiers in accounts.items()
        ]
