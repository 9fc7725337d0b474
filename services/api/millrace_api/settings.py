"""What the API is told from outside."""

from pathlib import Path

from pydantic import SecretStr

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
    """Beside the parts: where requests are counted together with the other replicas (`redis://…`); without it each
    counts by itself. Where the operator's own connectors are, a folder each. And the language model that puts prompts
    in plainer words, if there is one. `sign_up`: whether anyone may make an account."""

    limits: SecretStr = SecretStr("")
    sign_up: bool = False
    connectors_dir: Path | None = None
    model: str = ""
    model_key: SecretStr = SecretStr("")
