"""What the executor is told from outside."""

from millrace_runtime.settings import EgressSettings, KeyRingSettings, ServiceSettings


class ExecutorSettings(ServiceSettings, EgressSettings, KeyRingSettings):
    """Kafka, where steps may call though private, and the key ring that opens what they sign with."""
