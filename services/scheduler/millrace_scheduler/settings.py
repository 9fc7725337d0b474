"""What the scheduler is told from outside."""

from millrace_runtime.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Kafka, and where its state lies between two lives."""
