"""What a service is told from outside: environment variables `MILLRACE_*`, and files in `/run/secrets`.

Read once, in `__main__`, never in a module that decides something. A file `/run/secrets/millrace_postgres` serves in
place of the variable `MILLRACE_POSTGRES`; the variable wins. A missing or mistyped setting is one readable line that
never shows a value. Each service's class inherits `ServiceSettings` and the parts below that it needs.
"""

import socket
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from millrace_core import limits
from millrace_core.errors import Fatal
from millrace_kafka.security import Mechanism, Protocol, Security
from millrace_kafka.topics import PROJECTED_DAYS_MAX

PREFIX = "MILLRACE_"
SECRETS_DIR = Path("/run/secrets")


class _FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )


class ServiceSettings(_FromEnvironment):
    """What every service has."""

    kafka: str = "127.0.0.1:9092"
    kafka_protocol: Protocol = "plaintext"
    kafka_mechanism: Mechanism = "SCRAM-SHA-512"
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca: Path | None = None
    kafka_certificate: Path | None = None
    kafka_key: Path | None = None
    namespace: str = ""
    instance: str = Field(default_factory=socket.gethostname, min_length=1)
    state_dir: Path = Path(".millrace/state")
    ops_host: str = "127.0.0.1"
    ops_port: int = Field(default=0, ge=0, le=65_535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    clock_offset_ms: int = 0

    @property
    def security(self) -> Security:
        """How Kafka is spoken to."""
        return Security(
            self.kafka_protocol,
            self.kafka_mechanism,
            self.kafka_username,
            self.kafka_password.get_secret_value(),
            self.kafka_ca,
            self.kafka_certificate,
            self.kafka_key,
        )


class PostgresSettings(_FromEnvironment):
    """For the services that have Postgres: its address, with the password."""

    postgres: SecretStr


class RetentionSettings(_FromEnvironment):
    """For what sets how long accounts keep their things: what new accounts get, and the most that any may ask for."""

    retention_days: int = Field(default=limits.RETENTION_DAYS_DEFAULT, ge=limits.RETENTION_DAYS_MIN)
    retention_days_max: int = limits.RETENTION_DAYS_DEFAULT

    @field_validator("retention_days_max")
    @classmethod
    def _within_the_log(cls, most: int, info: ValidationInfo) -> int:
        if most > PROJECTED_DAYS_MAX:
            raise ValueError(
                f"the log keeps what rows are made of for {PROJECTED_DAYS_MAX} days: more could not be rebuilt"
            )
        if most < info.data.get("retention_days", 0):
            raise ValueError("it is less than MILLRACE_RETENTION_DAYS")
        return most


class HttpSettings(_FromEnvironment):
    """For the services with a surface of their own, beside the ops port. `cors_origins`: whose pages may call, with
    commas between; `*` = any, `none` = only pages of the surface's own origin."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65_535)
    cors_origins: str = "*"


class PepperSettings(_FromEnvironment):
    """For the services that look API keys up: keys are stored as HMAC-SHA256 under this pepper."""

    key_pepper: SecretStr = Field(min_length=16)


class KeyRingSettings(_FromEnvironment):
    """For the services that open stored secrets: `id:base64key[,id:base64key]`, the first is the current one."""

    key_ring: SecretStr


class EgressSettings(_FromEnvironment):
    """For the services that call out: address ranges, comma separated, that are allowed though private."""

    egress_allow: str = ""


S = TypeVar("S", bound=BaseSettings)


def read(settings: type[S], *, secrets_dir: Path = SECRETS_DIR) -> S:
    """The settings of this process. Raises Fatal that names each wrong variable, never its value."""
    try:
        # pydantic-settings warns about a directory that is not there, and most deployments have none.
        found = settings(_secrets_dir=secrets_dir if secrets_dir.is_dir() else None)
    except ValidationError as error:
        wrong = (f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise Fatal("wrong settings: " + "; ".join(wrong)) from None
    if isinstance(found, ServiceSettings):
        found.security.options()
    return found
