"""What the meter is told from outside."""

from millrace_runtime.settings import ServiceSettings


class MeterSettings(ServiceSettings):
    """Kafka only."""
