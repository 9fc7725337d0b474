"""What the matcher is told from outside."""

from millrace_runtime.settings import ServiceSettings


class MatcherSettings(ServiceSettings):
    """Kafka only: what it knows it has from the log."""
