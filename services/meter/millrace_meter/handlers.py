"""A tally in, counts by account and identifier out; and the records for `meters`. Pure."""

from collections.abc import Iterator

from millrace_core import record
from millrace_core.messages import Meter, Tally, decode, encode
from millrace_core.record import Output
from millrace_meter.windows import Counts, Key

METERS = "meters"


def counted(value: bytes | None) -> Iterator[tuple[Key, Counts]]:
    """What a record of `tallies` adds to. Raises Reject when it is none, before anything was added."""
    tally = decode(value, Tally)
    for identifier, events, runs, deliveries in tally.counts:
        yield (tally.account, identifier), (events, runs, deliveries)


def meter_output(meter: Meter) -> Output:
    """The record for `meters`."""
    account = meter.account.encode()
    return Output(METERS, account, encode(meter), ((record.ACCOUNT, account), (record.ID, meter.identifier.encode())))
