"""The API as the integration tests have it: what the documents promise is asked over HTTP."""

from tests.integration.conftest import api

__all__ = ["api"]
