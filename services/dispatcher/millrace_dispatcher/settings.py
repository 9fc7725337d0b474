"""What the dispatcher is told from outside."""

from millrace_runtime.settings import EgressSettings, KeyRingSettings, ServiceSettings


class DispatcherSettings(ServiceSettings, KeyRingSettings, EgressSettings):
    """Kafka, the key ring that opens signing secrets, and where webhooks may go though private."""
