"""`control` makes no rows: its tables are written before it. But its followers, one in every service, only count a
record that they cannot read, each for itself; it is parked here, where positions are kept, once.

Pure. Not here: whether a value makes sense (a filter that does not compile): its follower takes it for deleted.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from millrace_core.errors import Reject
from millrace_core.messages import (
    AccountControl,
    EndpointControl,
    KeyControl,
    PlanControl,
    SubscriptionControl,
    decode,
)
from millrace_core.record import ACCOUNT, ID, Received, header
from millrace_projector.rows import Rows

KIND = "kind"
VERSION = "version"

# A kind that is not here is a later release's: it is left alone, as its followers leave it.
_VALUES: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {
        "account": AccountControl,
        "key": KeyControl,
        "subscription": SubscriptionControl,
        "plan": PlanControl,
        "endpoint": EndpointControl,
    }
)


def control_changed(record: Received, _rows: Rows) -> None:
    """Raises Reject for a record that no follower can read. One without a value says that something was deleted."""
    kind, _account, _id, version = (_text(record, name) for name in (KIND, ACCOUNT, ID, VERSION))
    if not (version.isascii() and version.isdigit()):
        raise Reject(f"its version {version[:32]!r} is no number")
    if record.value is not None and (wanted := _VALUES.get(kind)) is not None:
        decode(record.value, wanted)


def _text(record: Received, name: str) -> str:
    value = header(record, name)
    if not value:
        raise Reject(f"not a control record: it has no {name}")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Reject(f"not a control record: its {name} is no text") from None
