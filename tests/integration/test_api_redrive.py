"""Dead letters sent again through HTTP: where to, once for each key, and which cannot be."""

import asyncio
import itertools
from typing import Any

import orjson
import pytest

from millrace_core.dead_letters import REDRIVE
from millrace_core.record import SOURCE, Received, header
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld
from tests.support.user import Answer

_LETTER = """INSERT INTO read.dead_letters (topic, partition, "offset", account, at, reason, source_topic,
        source_partition, source_offset, key, value, headers)
    VALUES ('dead-letters', 7, $1, $2, now(), $3, $4, 0, 1, $5, $6, $7)"""
_OFFSETS = itertools.count()


async def lettered(api: ApiWorld, source: str, *, reason: str = "was garbage", value: bytes = b"\xff\x00") -> str:
    """A dead letter in the read models, as the projector would have written it."""
    offset = next(_OFFSETS)
    headers = orjson.dumps([["account", api.account], ["id", "x"], ["source", "millrace.events.v1:0:1"]]).decode()
    await api.execute(_LETTER, offset, api.account, reason, source, b"key", value, headers)
    return f"dead-letters:7:{offset}"


async def sent(api: ApiWorld, letter: str) -> list[Received]:
    """The records that came of a letter."""
    read = await read_all(api.cluster, ["events", "run-commands", "deliveries"])
    return [record for record in read if (header(record, REDRIVE) or b"").startswith(f"{letter}/".encode())]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("events", "events"),
        ("run-commands", "run-commands"),
        ("run-commands-tx", "run-commands"),
        ("deliveries", "deliveries"),
        ("deliveries-tx", "deliveries"),
        ("deliveries-overflow", "deliveries"),
    ],
)
async def test_a_letter_goes_to_a_topic_that_may_be_written(api: ApiWorld, source: str, target: str) -> None:
    letter = await lettered(api, source)
    answer = await api.ask("POST", f"/v1/dead-letters/{letter}/redrive")
    assert answer.status == 202
    (record,) = await sent(api, letter)
    (told,) = answer.data["redrives"]
    assert told["to"] == f"{target}:{record.partition}:{record.offset}"
    assert (told["state"], answer.data["redriven_at"]) == ("written", told["done_at"])
    assert told["requested_by"].startswith("key_")
    assert (record.key, record.value, header(record, "id")) == (b"key", b"\xff\x00", b"x")
    assert header(record, SOURCE) is None, "a window takes it as new"
    assert (await api.ask("GET", f"/v1/dead-letters/{letter}")).data == answer.data


async def test_under_one_key_a_letter_is_sent_once_however_often_and_at_once_it_is_asked_for(api: ApiWorld) -> None:
    letter = await lettered(api, "events")

    async def ask(key: str | None) -> int:
        headers = None if key is None else {"idempotency-key": key}
        return (await api.ask("POST", f"/v1/dead-letters/{letter}/redrive", headers=headers)).status

    statuses = await asyncio.gather(*(ask("a") for _ in range(5)))
    assert statuses == [202] * 5, "the first answer, five times"
    assert len(await sent(api, letter)) == 1
    assert [await ask(None), await ask(None), await ask("b"), await ask("b")] == [202, 200, 202, 202]
    assert len(await sent(api, letter)) == 3


async def test_one_that_was_asked_for_by_a_caller_who_died_is_not_sent_by_itself(api: ApiWorld) -> None:
    letter = await lettered(api, "events", reason="half way")
    offset = int(letter.rpartition(":")[2])
    await api.execute(
        "INSERT INTO control.redrives VALUES ($1, 'dead-letters', 7, $2, '', 'asked', 'events', null, null, null, 'k', "
        "now(), null)",
        api.account,
        offset,
    )
    answer = await api.ask("POST", f"/v1/dead-letters/{letter}/redrive")
    assert (answer.status, answer.data["redrives"][0]["state"], answer.data["redriven_at"]) == (200, "asked", None)
    many = await api.ask("POST", "/v1/dead-letters/redrive", {"reason": "Half Way"})
    assert many.data == {"letters": 0, "written": 0, "refused": 0, "left": 0}
    assert await sent(api, letter) == []


@pytest.mark.parametrize("source", ["steps", "timers-tx", "step-results"])
async def test_what_cannot_be_sent_again_is_refused_with_the_reason(api: ApiWorld, source: str) -> None:
    letter = await lettered(api, source)
    answer = await api.ask("POST", f"/v1/dead-letters/{letter}/redrive")
    assert answer.status == 409
    assert f"a record of {source} cannot be sent again" in answer.body.decode()
    assert (await api.ask("GET", f"/v1/dead-letters/{letter}")).data["redrives"] == []
    wrong = await api.ask("POST", "/v1/dead-letters/redrive", {"topic": source})
    assert (wrong.status, "topic" in wrong.body.decode()) == (400, True)


async def test_one_too_large_for_its_topic_is_refused_and_says_so(api: ApiWorld) -> None:
    letter = await lettered(api, "events", value=b"x" * (2 * 1_048_576))
    answer = await api.ask("POST", f"/v1/dead-letters/{letter}/redrive")
    (told,) = answer.data["redrives"]
    assert (told["state"], told["to"], answer.data["redriven_at"]) == ("refused", None, None)
    assert told["reason"]


async def test_many_are_counted_and_then_sent_by_topic_and_reason(api: ApiWorld) -> None:
    wanted = [await lettered(api, "deliveries", reason=f"many {n}: 100 % sure") for n in range(45)]
    others = [await lettered(api, "events", reason="many"), await lettered(api, "deliveries", reason="few")]
    choice: dict[str, Any] = {"topic": "deliveries", "reason": "100 %"}
    counted = await api.ask("POST", "/v1/dead-letters/redrive", {**choice, "dry_run": True})
    assert counted.data == {"letters": 45, "written": 0, "refused": 0, "left": 45}
    done = await api.ask("POST", "/v1/dead-letters/redrive", choice)
    assert done.data == {"letters": 45, "written": 45, "refused": 0, "left": 0}
    again = await api.ask("POST", "/v1/dead-letters/redrive", choice, headers={"idempotency-key": "again"})
    assert again.data["letters"] == 0
    assert [len(await sent(api, letter)) for letter in (wanted[0], wanted[-1], *others)] == [1, 1, 0, 0]


async def test_nobody_sends_anothers_letters(api: ApiWorld) -> None:
    letter = await lettered(api, "events")
    assert (await api.ask_b("POST", f"/v1/dead-letters/{letter}/redrive")).status == 404
    assert (await api.ask_b("POST", "/v1/dead-letters/redrive", {})).data["letters"] == 0
    assert await sent(api, letter) == []


async def test_many_asked_for_again_under_their_key_are_not_sent_anew_and_the_answer_is_the_first(
    api: ApiWorld,
) -> None:
    async def ask(reason: str = "under a key") -> Answer:
        headers = {"idempotency-key": "many"}
        return await api.ask("POST", "/v1/dead-letters/redrive", {"reason": reason}, headers=headers)

    letter = await lettered(api, "events", reason="under a key")
    first = await ask()
    assert first.data == {"letters": 1, "written": 1, "refused": 0, "left": 0}
    later = await lettered(api, "events", reason="under a key")
    again = await ask()
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")
    other = await ask("another body")
    assert (other.status, other.error["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert [len(await sent(api, each)) for each in (letter, later)] == [1, 0]


async def test_many_whose_caller_died_go_on_where_they_were(api: ApiWorld) -> None:
    """Claimed, and no answer kept: as after a death in the middle."""
    letters = [await lettered(api, "events", reason="cut off") for _ in range(2)]
    headers, choice = {"idempotency-key": "cut off"}, {"reason": "cut off"}
    await api.ask("POST", "/v1/dead-letters/redrive", choice, headers=headers)
    await api.execute(
        "UPDATE control.idempotency_keys SET status = NULL, body = NULL, held_until = NULL WHERE key = 'cut off'"
    )
    later = await lettered(api, "events", reason="cut off")
    done = await api.ask("POST", "/v1/dead-letters/redrive", choice, headers=headers)
    assert done.data == {"letters": 1, "written": 1, "refused": 0, "left": 0}
    assert [len(await sent(api, each)) for each in (*letters, later)] == [1, 1, 1]
