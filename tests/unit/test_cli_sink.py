"""The demo's sink believes the official verifier, and nothing else."""

import aiohttp
import orjson
import pytest

from millrace_cli.sink import Sink, serve
from millrace_core.clock import SystemClock
from millrace_core.signing import new_secret, signed_headers

BODY = orjson.dumps({"id": "evt_1", "type": "e:github/push", "timestamp": "2026-01-01T00:00:00Z", "data": {}})


async def post(sink: Sink, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(sink.url + path, data=body, headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("lie", ["secret", "body", "time"])
async def test_only_a_right_signature_counts(lie: str) -> None:
    async with serve() as sink:
        sink.secret = new_secret()
        now_s = SystemClock().now_ms() // 1000
        right = signed_headers("dlv_1", now_s, BODY, [sink.secret])
        assert (await post(sink, "/hook", BODY, right))[0] == 204
        assert sink.verified == {"evt_1": "dlv_1"}
        wrong = {
            "secret": signed_headers("dlv_2", now_s, BODY, [new_secret()]),
            "body": signed_headers("dlv_2", now_s, BODY + b" ", [sink.secret]),
            "time": signed_headers("dlv_2", now_s - 600, BODY, [sink.secret]),
        }[lie]
        assert (await post(sink, "/hook", BODY, wrong))[0] == 401
        assert sink.verified == {"evt_1": "dlv_1"}
        assert sum(sink.refused.values()) == 1


async def test_a_repeat_is_one_delivery() -> None:
    async with serve() as sink:
        sink.secret = new_secret()
        headers = signed_headers("dlv_1", SystemClock().now_ms() // 1000, BODY, [sink.secret])
        for _ in range(3):
            await post(sink, "/hook", BODY, headers)
        assert len(sink.verified) == 1


async def test_it_answers_the_jobs() -> None:
    async with serve() as sink:
        asked = orjson.dumps({"event": "evt_1", "title": "Spelling error in the README"})
        _, answer = await post(sink, "/words", asked, {"content-type": "application/json"})
        assert orjson.loads(answer) == {"words": 5}
        await post(sink, "/job", asked, {"content-type": "application/json"})
        assert (sink.job_calls, sink.chain_calls) == ({"evt_1": 1}, {"evt_1": 1})
