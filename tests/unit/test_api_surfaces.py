"""Which surface a request is for: by its path, and where two share one, by how the caller proves who he is."""

import pytest

from millrace_api.surfaces.which import surface_of

SIGNED = [(b"x-opsiq-key", b"ok_live_x")]


@pytest.mark.parametrize(
    ("path", "headers", "surface"),
    [
        ("/v1/runs", [], "native"),
        ("/v1/runs", SIGNED, "native"),
        ("/v1/workflows/wf_1", [], "automation"),
        ("/v1/workflowsandmore", [], "native"),
        ("/api/workflows", [], "automation"),
        ("/v1/webhooks", [], "automation"),
        ("/v1/webhooks/we_1", SIGNED, "ops"),
        ("/v1/webhooks/test", [], "ops"),
        ("/v1/customers/421", [], "ops"),
        ("/api/v1/intake-bots", [], "intake"),
        ("/api/v1", [], "intake"),
        ("/api/v11", [], "native"),
        ("/", [], "native"),
    ],
)
def test_the_surface_of_a_path(path: str, headers: list[tuple[bytes, bytes]], surface: str) -> None:
    assert surface_of({"path": path, "headers": headers}) == surface
