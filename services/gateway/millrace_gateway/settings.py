"""What the gateway is told from outside."""

from pydantic import Field

from millrace_runtime.settings import HttpSettings, KeyRingSettings, PepperSettings, ServiceSettings


class GatewaySettings(ServiceSettings, HttpSettings, PepperSettings, KeyRingSettings):
    """Beside what every service has: how many gateways share an account's rate."""

    gateway_replicas: int = Field(default=1, ge=1, le=10_000)
