"""What commands that go straight to Kafka or Postgres are told from outside: the services' own variables."""

from millrace_runtime.settings import KeyRingSettings, PepperSettings, PostgresSettings, ServiceSettings


class LogSettings(ServiceSettings):
    """Commands about the log."""


class DatabaseSettings(PostgresSettings):
    """Commands about the tables."""


class KeySettings(PostgresSettings, PepperSettings, KeyRingSettings):
    """Commands that make keys."""
