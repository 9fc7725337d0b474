"""What commands that go straight to Kafka or Postgres are told from outside: the services' own variables."""

from millrace_runtime.settings import (
    KeyRingSettings,
    PepperSettings,
    PostgresSettings,
    RetentionSettings,
    ServiceSettings,
)


class LogSettings(ServiceSettings):
    """Commands about the log."""


class DatabaseSettings(PostgresSettings):
    """Commands about the tables."""


class KeySettings(PostgresSettings, PepperSettings, KeyRingSettings, RetentionSettings):
    """Commands that make keys, and accounts."""


class KeepSettings(PostgresSettings, RetentionSettings):
    """Commands about what accounts keep."""
