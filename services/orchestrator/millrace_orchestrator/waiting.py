"""What the decider of admissions keeps in the task's state: who waits, who is at work, and what is kept of a key.

Plain data, as its changelog holds it. Not here: what is decided by it (`admissions`).
"""

from typing import Literal

import msgspec

from millrace_core.messages import WaitReason
from millrace_orchestrator.throttle import Spent

Kind = Literal["latest", "first", "all", "batch"]
"""How an open one gathers: a mode of debounce, or a batch."""

LISTS: tuple[Kind, ...] = ("all", "batch")
"""Those whose run gets a list of inputs."""

Headers = tuple[tuple[str, bytes], ...]


class Came(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where on `events`, and received when."""

    partition: int
    offset: int
    at: int

    def is_before(self, other: "Came") -> bool:
        """By their order where they have one, else by time."""
        if self.partition == other.partition:
            return self.offset < other.offset
        return self.at <= other.at


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that cancelled a key. It holds for what came before it and is on its way, until then."""

    came: Came
    event: str
    until: int


class Gathering(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an open one has gathered."""

    kind: Kind
    opened_at: int
    last_at: int
    count: int
    bytes: int

    @property
    def reason(self) -> WaitReason:
        """What it waits for."""
        return "batch" if self.kind == "batch" else "debounce"


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A held run. `inputs` counts those of its list, 0 = its own input as it is; `told_at` 0 = nothing was told."""

    run: str
    key: str
    priority: int
    came: Came
    headers: Headers
    gathering: Gathering | None = None
    inputs: int = 0
    reason: WaitReason | None = None
    until: int | None = None
    told_at: int = 0

    @property
    def has_items(self) -> bool:
        """Whether inputs of a list are kept for it."""
        return self.inputs > 0 or (self.gathering is not None and self.gathering.kind in LISTS)


class Live(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run that was told to begin and has not ended."""

    key: str
    came: Came
    is_cancelled: bool = False


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is kept of a key itself."""

    key: str
    spent: Spent = ()
    mark: Mark | None = None


encode_entry = msgspec.msgpack.Encoder().encode
decode_waiting = msgspec.msgpack.Decoder(Waiting).decode
decode_live = msgspec.msgpack.Decoder(Live).decode
decode_kept = msgspec.msgpack.Decoder(Kept).decode
