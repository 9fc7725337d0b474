"""Seed 001, "HMAC": the guide's snippets sign as the published vectors do, run as they stand on the page."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "signing-requests.md").read_text()
PUBLISHED: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "request_signing.json").read_text())
NODE = Path(sys.executable).parent / "node"

PYTHON = """
import json, sys
given = json.load(open("given.json"))
print(json.dumps([
    signed(given["key"], given["secret"], v["method"], v["target"], v["body"].encode(), v["timestamp"], v["nonce"])
    for v in given["vectors"]
]))
"""
TYPESCRIPT = """
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync("given.json", "utf8"));
console.log(JSON.stringify(given.vectors.map((v: Record<string, string>) =>
  signed(given.key, given.secret, v.method, v.target, v.body, v.timestamp, v.nonce))));
"""


def snippet(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return str(code)


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_the_snippet_signs_as_the_vectors_say(language: str, tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text(json.dumps(PUBLISHED))
    if language == "python":
        script, program, after = tmp_path / "sign.py", [sys.executable, "-I"], PYTHON
    else:
        script, program, after = tmp_path / "sign.ts", [str(NODE), "--no-warnings"], TYPESCRIPT
    script.write_text(snippet(language) + after)
    made = subprocess.run(
        [*program, script.name], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert made.returncode == 0, made.stderr
    for headers, vector in zip(json.loads(made.stdout), PUBLISHED["vectors"], strict=True):
        assert headers == {
            "X-OpsIQ-Key": PUBLISHED["key"],
            "X-OpsIQ-Timestamp": vector["timestamp"],
            "X-OpsIQ-Nonce": vector["nonce"],
            "X-OpsIQ-Signature": vector["signature"],
        }, vector["name"]


def test_the_php_snippet_takes_the_same_parts_in_the_same_order() -> None:
    """There is no PHP here to run it with: it is held to the text of what is signed."""
    php = snippet("php")
    assert "implode(\"\\n\", [$timestamp, $nonce, $method, $target, hash('sha256', $body)])" in php
    assert "'sha256=' . hash_hmac('sha256', $content, $secret)" in php


def test_the_guide_shows_one_of_the_vectors() -> None:
    (shown,) = [vector for vector in PUBLISHED["vectors"] if vector["name"] == "a POST"]
    assert {PUBLISHED["secret"], *shown.values()} - {"a POST"} <= set(re.findall(r"`([^`\n]+)`", GUIDE)) | {
        shown["method"],
        shown["target"],
    }
