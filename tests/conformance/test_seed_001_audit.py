"""Seed 001, "Every prompt, every response, every action, recorded": the audit, for owners alone, as JSON and CSV."""

import csv
import io
from dataclasses import replace
from typing import Any

from tests.conformance.test_seed_001_actions import PARAMS, register, run
from tests.e2e.conftest import Millrace
from tests.support.waiting import eventually


async def entries(millrace: Millrace, query: str, count: int) -> list[dict[str, Any]]:
    async def are_there() -> list[dict[str, Any]]:
        answer = await millrace.user.ask("GET", f"/v1/audit?limit=100&{query}")
        found: list[dict[str, Any]] = answer.data
        assert len(found) >= count, (len(found), answer.body)
        return found

    return await eventually(are_there, timeout_s=20, every_s=0.1, what=f"{count} audit entries")


async def test_a_call_leaves_who_asked_what_came_of_it_and_how_long_it_took(millrace: Millrace) -> None:
    await register(millrace, "audit.run")
    millrace.sink.answers["/audit.run"] = {"sent": True}
    done = (await run(millrace.user, "audit.run")).json
    executed, requested = await entries(millrace, "action=audit.run", 2)
    assert [executed["kind"], requested["kind"]] == ["action.executed", "action.requested"]
    assert executed["run"] == requested["run"] == done["id"]
    assert executed["params"] == requested["params"] == PARAMS
    assert (executed["result"], executed["outcome"]) == ({"sent": True}, "completed")
    assert executed["duration_ms"] > 0
    assert executed["actor"] == requested["actor"]
    assert executed["actor"].startswith("key_")
    one = await millrace.user.get(f"/v1/audit/{executed['id']}")
    assert one == executed


async def test_a_failure_is_told_with_its_error(millrace: Millrace) -> None:
    await register(millrace, "audit.gone")
    millrace.sink.gone.add("/audit.gone")
    await run(millrace.user, "audit.gone")
    (failed,) = await entries(millrace, "action=audit.gone&outcome=failed", 1)
    assert failed["error"]["code"] == "http_410"


async def test_a_yes_and_a_no_are_told(millrace: Millrace) -> None:
    await register(millrace, "audit.ask", confirmation={"policy": "always"})
    yes, no = [(await run(millrace.user, "audit.ask")).json["confirmation"]["id"] for _ in range(2)]
    await millrace.user.ask("POST", f"/v1/actions/confirmations/{yes}/confirm")
    await millrace.user.ask("POST", f"/v1/actions/confirmations/{no}/refuse")
    told = await entries(millrace, "action=audit.ask", 5)
    kinds = {(one["kind"], one["confirmation"]) for one in told}
    assert kinds == {
        ("action.asked", yes),
        ("action.asked", no),
        ("action.confirmed", yes),
        ("action.refused", no),
        ("action.executed", yes),
    }


async def test_it_is_paged_and_filtered(millrace: Millrace) -> None:
    await register(millrace, "audit.pages")
    for _ in range(2):
        await run(millrace.user, "audit.pages")
    await entries(millrace, "action=audit.pages", 4)
    paged = [one async for one in millrace.user.every("/v1/audit?action=audit.pages", limit=1)]
    assert len(paged) == 4
    assert [one["at"] for one in paged] == sorted((one["at"] for one in paged), reverse=True)
    only = await entries(millrace, "action=audit.pages&kind=action.requested", 2)
    assert {one["kind"] for one in only} == {"action.requested"}
    until = only[-1]["at"]
    before = (await millrace.user.ask("GET", f"/v1/audit?action=audit.pages&until={until}")).data
    assert before == []
    assert (await millrace.user.ask("GET", "/v1/audit?kind=nonsense")).status == 400


async def test_as_csv_no_cell_is_a_formula(millrace: Millrace) -> None:
    await register(millrace, "audit.csv")
    await run(millrace.user, "audit.csv", {**PARAMS, "article": '=cmd|"/C calc"!A0'})
    await entries(millrace, "action=audit.csv", 2)
    answer = await millrace.user.ask("GET", "/v1/audit/export?action=audit.csv")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    head, *rows = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert head[:4] == ["id", "at", "kind", "actor"]
    assert len(rows) == 2
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


async def test_a_stranger_reads_his_own_and_others_may_not_read_at_all(millrace: Millrace) -> None:
    await register(millrace, "audit.own")
    await run(millrace.user, "audit.own")
    mine = (await entries(millrace, "action=audit.own", 1))[0]["id"]
    assert (await millrace.stranger.ask("GET", f"/v1/audit/{mine}")).status == 404
    assert (await millrace.stranger.ask("GET", "/v1/audit?action=audit.own")).data == []
    key = await millrace.user.make("/v1/keys", {"name": "reader", "scopes": ["read:actions"]})
    reader = replace(millrace.user, key=key["key"])
    assert (await reader.ask("GET", "/v1/audit")).status == 403
    assert (await reader.ask("GET", "/v1/audit/export")).status == 403
