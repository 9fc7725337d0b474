"""The audit as CSV: what a spreadsheet would work out is text."""

import pytest

from millrace_api.application.audit import safe_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_formula_becomes_text(text: str) -> None:
    assert safe_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", '{"a":-1}', "1"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text
