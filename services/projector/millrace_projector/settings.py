"""The projector's settings: environment variables `MILLRACE_*`."""

from pydantic import Field

from millrace_core import limits
from millrace_runtime.settings import PostgresSettings, ServiceSettings


class ProjectorSettings(ServiceSettings, PostgresSettings):
    """`gather_s` is how long a busy projector lets a batch grow at most: the delay of reading one's writes, against the
    number of transactions, and of rows that are written a second time because they were not over yet."""

    gather_s: float = Field(default=limits.PROJECTOR_GATHER_S, ge=0.0, le=5.0)
