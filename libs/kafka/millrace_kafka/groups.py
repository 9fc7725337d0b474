"""Who reads what in a group: the one list from which first positions are committed and assignments are made.

A group that is not listed here has no first position, and its consumers stop (`auto_offset_reset=none`). The projector
keeps its positions in Postgres and the meter reads by Faust, so neither is here.
"""

from collections.abc import Mapping
from types import MappingProxyType

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "matcher": ("events",),
        "orchestrator": ("run-commands", "run-commands-tx", "step-results"),
        "admissions": ("admissions",),
        "executor": ("steps",),
        "dispatcher": ("deliveries", "deliveries-tx", "deliveries-overflow"),
        "scheduler": ("timers", "timers-tx"),
    }
)
