"""`python -m millrace_gateway`."""

from millrace_gateway.settings import GatewaySettings
from millrace_gateway.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("gateway", GatewaySettings, wire)
