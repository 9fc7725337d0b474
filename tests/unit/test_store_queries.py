"""Named SQL from files: names, comments, and the same statements for another schema."""

import pytest

from millrace_core.errors import Fatal
from millrace_store import queries

TEXT = """-- About this file.

-- name: get_run
SELECT * FROM read.runs WHERE id = $1;

-- About the next.
-- name: list_runs
SELECT * FROM read.runs AS read_runs -- a comment inside
WHERE account = $1;
"""


def test_statements_are_found_by_name_without_their_comments_and_semicolons() -> None:
    found = queries.parse(TEXT)
    assert list(found) == ["get_run", "list_runs"]
    assert found["get_run"] == "SELECT * FROM read.runs WHERE id = $1"
    assert found["list_runs"].endswith("WHERE account = $1")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;\n-- name: a\nSELECT 1",
        "-- name: a\nSELECT 1;\n-- name: a\nSELECT 2",
        "-- name: a\n\n-- name: b\nSELECT 1",
    ],
    ids=["SQL before the first name", "a name twice", "an empty statement"],
)
def test_a_wrong_file_is_refused(text: str) -> None:
    with pytest.raises(Fatal):
        queries.parse(text)


def test_a_schema_is_replaced_by_name_only() -> None:
    found = queries.in_schema(queries.parse(TEXT), "read_rebuild")
    assert "FROM read_rebuild.runs AS read_runs" in found["list_runs"]


def test_a_schema_that_is_no_name_is_refused() -> None:
    with pytest.raises(Fatal):
        queries.in_schema({}, 'read"; DROP')


@pytest.mark.parametrize("file", ["idempotency", "leading", "outbox", "projection", "shadow", "verify"])
def test_the_packaged_files_are_readable(file: str) -> None:
    assert queries.load(file)
