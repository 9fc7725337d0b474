"""What the API is told from outside."""

from millrace_runtime.settings import (
    EgressSettings,
    HttpSettings,
    KeyRingSettings,
    PepperSettings,
    PostgresSettings,
    RetentionSettings,
    ServiceSettings,
)


class ApiSettings(
    ServiceSettings,
    PostgresSettings,
    HttpSettings,
    PepperSettings,
    KeyRingSettings,
    EgressSettings,
    RetentionSettings,
):
    """Nothing of its own beside the parts."""
