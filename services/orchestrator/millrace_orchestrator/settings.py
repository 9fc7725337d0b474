"""What the orchestrator is told from outside."""

from millrace_runtime.settings import ServiceSettings


class OrchestratorSettings(ServiceSettings):
    """Kafka, and where its state lies between two lives."""
