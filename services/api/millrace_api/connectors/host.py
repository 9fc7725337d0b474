"""The process of one connector: `python -m millrace_api.connectors.host <folder>`.

Reads calls as lines of JSON from its standard input and writes an answer for each, with the call's number; ends when
the input does. Its environment is empty and its memory bounded, so what a connector does wrong, it does to itself. What
it prints goes to standard error. Not here: who asks, and what becomes of the answers (`processes`).
"""

import base64
import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, BinaryIO

from millrace_core import limits
from millrace_core.connectors import CALLS

FILE = "connector.py"
UNASKED = 0
"""The number of what is said at the start, which nobody asked for."""


class NoConnector(Exception):
    """The folder holds none."""


def loaded(folder: Path) -> Any:
    """An instance of the one class in the folder that has the five methods. Raises NoConnector, and whatever the
    module raises."""
    path = folder / FILE
    spec = importlib.util.spec_from_file_location(f"millrace_connector_{folder.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise NoConnector(f"there is no {FILE} in {folder.name}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    spec.loader.exec_module(module)
    found = [one for one in _classes(module) if all(callable(getattr(one, call, None)) for call in CALLS)]
    if len(found) != 1:
        raise NoConnector(f"{FILE} must have one class with {', '.join(CALLS)}; {len(found)} have them")
    return found[0]()


def _classes(module: ModuleType) -> list[type]:
    return [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]


def answered(connector: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one call: `{result}` or `{error}`."""
    try:
        call = asked["call"]
        if call == "describe":
            return {"result": _described(connector)}
        given = asked["arguments"]
        connection = SimpleNamespace(**given["connection"])
        if call != "handle_webhook":
            return {"result": getattr(connector, call)(connection)}
        request = SimpleNamespace(**given["request"])
        request.body = base64.b64decode(request.body)
        return {"result": connector.handle_webhook(connection, request)}
    except Exception as error:
        # A message may hold what was given, secrets too: only its kind goes back.
        return {"error": type(error).__name__}


def _described(connector: Any) -> dict[str, Any]:
    return {
        "title": str(getattr(connector, "title", type(connector).__name__)),
        "description": str(getattr(connector, "description", "")),
        "secrets": [str(name) for name in getattr(connector, "secrets", ())],
    }


def serve(connector: Any, calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the input ends."""
    for line in calls:
        asked = json.loads(line)
        answer = answered(connector, asked)
        try:
            _write(answers, asked["number"], answer)
        except (TypeError, ValueError, RecursionError):
            _write(answers, asked["number"], {"error": "the answer is no JSON"})


def _write(answers: BinaryIO, number: int, answer: Mapping[str, Any]) -> None:
    """One line, or nothing of it."""
    line = json.dumps({"number": number, **answer})
    answers.write(line.encode() + b"\n")
    answers.flush()


def _die_with_parent() -> None:
    """The end of the input is enough for one that answers; one that hangs would stay. Linux alone has this."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """The command; answers the exit code."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a connector prints must not look like an answer
    _die_with_parent()
    most = limits.CONNECTOR_MEMORY_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        connector = loaded(Path(arguments[0]))
    except BaseException as error:
        reason = str(error) if isinstance(error, NoConnector) else type(error).__name__
        _write(answers, UNASKED, {"error": reason})
        return 1
    _write(answers, UNASKED, {"result": _described(connector)})
    serve(connector, sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
