"""FastAPI pieces shared by gateway and api.

`errors` and `envelopes`: what a surface answers. `request_ids`, `body_limit`, `observed`: ASGI layers around an
application. `api_keys`, `scopes`, `authentication`: who calls and what he may. `rate_limits`: how often. `paging`,
`positions`: lists and read-your-writes. Nothing here knows the log's client or the database.
"""
