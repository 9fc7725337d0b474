"""Schemathesis over every surface, with a key without limits: what each OpenAPI document says is what is answered.

A request or two for each operation here. `MILLRACE_FUZZ_EXAMPLES` tries every corner of every schema too, and so many
examples of each operation: 76 made 21,068 requests in three and a half minutes on two cores. `-s` shows how many.
"""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Millrace

EXAMPLES = int(os.environ.get("MILLRACE_FUZZ_EXAMPLES", "0"))
PHASES = "examples,coverage,fuzzing,stateful" if EXAMPLES else "examples,fuzzing,stateful"
OFF = {
    # Refusals that no JSON Schema can tell of: expressions that must compile, patterns, addresses, cursors and
    # positions that must be ours, members that need one another. They are 400 and name the member.
    "positive_data_acceptance",
}
GATEWAY = "^(/ingest/|/v1/events/fire$)"
DOCUMENTS = {"gateway": "", "ops": "/ops", "intake": "/intake", "automation": "/automation", "native": "/native"}


@pytest.mark.parametrize("surface", DOCUMENTS)
async def test_what_is_answered_is_what_the_document_says(millrace: Millrace, surface: str, tmp_path: Path) -> None:
    key = await asyncio.to_thread(millrace.platform.new_key, f"fuzz-{surface}")
    url = millrace.platform.url("api")
    chosen, base = ("include", millrace.platform.url("gateway")) if surface == "gateway" else ("exclude", url)
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{url}/openapi{DOCUMENTS[surface]}.json",
        f"--{chosen}-path-regex={GATEWAY}",
        f"--url={base}",
        f"--header=Authorization: Bearer {key}",
        "--checks=all",
        f"--exclude-checks={','.join(sorted(OFF))}",
        f"--phases={PHASES}",
        f"--max-examples={EXAMPLES or 1}",
        "--generation-database=none",
        "--seed=5",
        "--no-color",
        "--warnings=off",
        "--workers=1",  # its caches are not safe among several
        "--request-timeout=30",
        "--continue-on-failure",
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, said
    made = re.search(r"(\d+) generated", said)
    assert made is not None, said
    print(f"{surface}: {made[1]} requests")
