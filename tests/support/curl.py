"""Runs a curl line as a document prints it, over our own HTTP client, so that nothing needs to be installed.

Understands what such lines use: `-X`, `-H`, `-d`, and the address. Anything else is an error, not a guess.
"""

import shlex
from collections.abc import Mapping

from tests.support.api_world import ApiWorld
from tests.support.user import Answer


async def run(api: ApiWorld, line: str, *, replaced: Mapping[str, str]) -> Answer:
    """The answer. `replaced` are the base URL, the key and the ids that the reader puts in himself."""
    for old, new in replaced.items():
        assert old in line, f"the document says {old!r}"
        line = line.replace(old, new)
    command, *words = shlex.split(line.replace("\\\n", " "))
    assert command == "curl"
    method, url, headers, body = None, None, {}, None
    rest = iter(words)
    for word in rest:
        match word:
            case "-X":
                method = next(rest)
            case "-H":
                name, _, value = next(rest).partition(":")
                headers[name.strip().lower()] = value.strip()
            case "-d":
                body = next(rest).encode()
            case _:
                assert not word.startswith("-"), f"curl's {word} is not understood here"
                url = word
    assert url is not None
    async with api.session.request(
        method or ("GET" if body is None else "POST"), url, data=body, headers=headers
    ) as got:
        return Answer(got.status, got.headers, await got.read())
