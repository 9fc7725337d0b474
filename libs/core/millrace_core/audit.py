"""The audit: what was asked, decided and done stands on a log of its own, for ever, before anybody is answered.

An entry is written with what it is about or before it, or follows from a row that says it is owed; never instead. Not
here: who may read it, the read model.
"""

from millrace_core import limits
from millrace_core.messages import AuditEntry, encode
from millrace_core.record import ACCOUNT, ID, Output

TOPIC = "audit"


def to_output(entry: AuditEntry) -> Output:
    """The record for the topic `audit`. An account's entries stay in order."""
    account = entry.account.encode()
    return Output(TOPIC, account, encode(entry), ((ACCOUNT, account), (ID, entry.id.encode())))


assert limits.ACTION_PARAMS_BYTES_MAX + limits.STEP_OUTPUT_BYTES_MAX * 2 < limits.RECORD_VALUE_BYTES_MAX, (
    "an entry with the largest parameters and result fits its record"
)
