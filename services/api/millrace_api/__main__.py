"""`python -m millrace_api`."""

from millrace_api.settings import ApiSettings
from millrace_api.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("api", ApiSettings, wire)
