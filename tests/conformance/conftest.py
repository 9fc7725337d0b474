"""The API as the integration tests have it, and a whole Millrace of processes: what the documents promise is asked over
HTTP."""

from tests.e2e.conftest import millrace
from tests.integration.conftest import api

__all__ = ["api", "millrace"]
