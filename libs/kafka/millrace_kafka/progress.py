"""What is done and what is not on one partition that is worked on out of order. Pure: no client, no clock.

Only the contiguous prefix is committed as the position; what is done beyond it is written into the commit's metadata
(4,096 bytes at most), so that a restart does not repeat it. How many records may be open is bounded so that the
metadata always fits, whatever order they finish in. The metadata also tells how the last owner ended: `clean` when it
gave the partition back, and how often the first open record was begun alone after an unclean end.
"""

import base64

import msgspec

from millrace_core import limits

# `1:` + clean flag + deaths + `:`; the rest is base64 of the runs.
PREFIX_BYTES = 8
RUNS_BYTES_MAX = (limits.COMMIT_METADATA_BYTES_MAX - PREFIX_BYTES) * 3 // 4
VERSION = "1"


class Mark(msgspec.Struct, frozen=True, gc=False):
    """What a commit's metadata says: what is done from the position on, and how its writer ended."""

    done: tuple[tuple[int, int], ...] = ()
    """Ranges (first offset, offset behind the last) in which everything is done."""
    is_clean: bool = True
    alone: int = 0
    """How often the record at the position was begun alone after an unclean end."""

    def is_done(self, offset: int) -> bool:
        return any(first <= offset < behind for first, behind in self.done)


def encode(position: int, mark: Mark) -> str:
    """Runs of not done and done offsets in turn, each as a varint, from the position on."""
    raw = bytearray()
    at = position
    for first, behind in mark.done:
        _put(raw, first - at)
        _put(raw, behind - first)
        at = behind
    runs = base64.b64encode(bytes(raw)).decode()
    return f"{VERSION}:{int(mark.is_clean)}{min(mark.alone, 9)}:{runs}"


def decode(position: int, metadata: str) -> Mark:
    """The mark of a commit. Metadata that was written by something else counts as clean and says nothing."""
    parts = metadata.split(":")
    if len(parts) != 3 or parts[0] != VERSION or len(parts[1]) != 2 or not parts[1].isdigit():
        return Mark()
    try:
        numbers = _numbers(base64.b64decode(parts[2], validate=True))
    except ValueError:
        return Mark()
    done, at = [], position
    for missing, there in zip(numbers[::2], numbers[1::2], strict=False):
        done.append((at + missing, at + missing + there))
        at += missing + there
    return Mark(tuple(done), parts[1][0] == "1", int(parts[1][1]))


def _put(raw: bytearray, number: int) -> None:
    while number >= 0x80:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)


def _numbers(raw: bytes) -> list[int]:
    numbers, value, shift = [], 0, 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
    return numbers


class Progress:
    """The open records of one partition: `taken` in offset order, `finished` in any. What was seen and is not open is
    done, so a record that blocks the position for hours costs nothing more."""

    def __init__(self, position: int, mark: Mark) -> None:
        self.position = position
        """Everything below is done: what is committed."""
        self.next = position
        """The offset behind everything seen."""
        self.alone = mark.alone
        """How often the first open record was begun alone; over when it is finished."""
        self._before = mark
        self._open: dict[int, None] = {}  # in offset order

    def __len__(self) -> int:
        """Open records."""
        return len(self._open)

    def first_open(self) -> int | None:
        """The record that the position waits for."""
        return next(iter(self._open), None)

    def taken(self, offset: int) -> bool:
        """A record was read. False when it was done in an earlier life: it must not be worked on again."""
        self.next = offset + 1
        is_new = not self._before.is_done(offset)
        if is_new:
            self._open[offset] = None
        self._advance()
        return is_new

    def finished(self, offset: int) -> None:
        """The record is done, its outputs acked."""
        is_first = offset == self.first_open()
        if self._open.pop(offset, 0) is None:
            if is_first:
                self.alone = 0
            self._advance()

    def passed(self, offset: int) -> None:
        """The reader stands there: nothing below is still to come (markers and deleted records take offsets, too)."""
        self.next = max(self.next, offset)
        self._advance()

    def _advance(self) -> None:
        first = self.first_open()
        self.position = self.next if first is None else first

    def mark(self, *, is_clean: bool) -> Mark:
        """What to write with the position."""
        done, at = [], self.position
        for offset in self._open:
            if offset > at:
                done.append((at, offset))
            at = offset + 1
        if self.next > at:
            done.append((at, self.next))
        unread = self._unread()
        if done and unread and done[-1][1] == unread[0][0]:
            unread[0] = (done.pop()[0], unread[0][1])
        return Mark((*done, *unread), is_clean, self.alone)

    def _unread(self) -> list[tuple[int, int]]:
        """What an earlier life finished beyond what this one has read."""
        return [(max(first, self.next), behind) for first, behind in self._before.done if behind > self.next]

    def is_full(self) -> bool:
        """Whether one more open record could make the metadata too long. At worst every second one is done: two
        varints for each open record, of as many bytes as the span needs. The first one always fits: it takes a place
        among what the last commit said, which fitted, and nothing would move without it."""
        if not self._open:
            return False
        unread = self._unread()
        span = max(1, (unread[-1][1] if unread else self.next) - self.position)
        varint_bytes = (span.bit_length() + 6) // 7
        return (len(self._open) + len(unread) + 2) * 2 * varint_bytes > RUNS_BYTES_MAX
