"""Seed 001, "Three official SDKs": the page's snippets. They fail until there are SDKs, and must run then."""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

LIBS = Path(__file__).parents[2] / "libs"


@pytest.mark.xfail(strict=True, reason="there is no SDK yet", raises=ModuleNotFoundError)
def test_the_python_snippet() -> None:
    sdk: Any = importlib.import_module("opsiq")
    ops = sdk.OpsIQ(public_key=os.environ["OPSIQ_KEY"], secret_key=os.environ["OPSIQ_SECRET"])
    ops.events.fire("order.shipped", {"customer_id": 421, "order_ref": "NB-9182"})
    ops.actions.run("saas.send_kb_link", {"ticket_id": 5519, "article": "how-to-reset-password"})


@pytest.mark.xfail(strict=True, reason="there is no SDK yet", raises=AssertionError)
@pytest.mark.parametrize("package", ["sdk-typescript/package.json", "sdk-php/composer.json"])
def test_the_other_snippets(package: str) -> None:
    assert (LIBS / package).exists()
