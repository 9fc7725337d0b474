"""What the executor is told from outside."""

from millrace_runtime.settings import EgressSettings, ServiceSettings


class ExecutorSettings(ServiceSettings, EgressSettings):
    """Kafka, and where steps may call though private."""
