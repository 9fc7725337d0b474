"""`make dev`: the whole platform on this machine, behind one port, until Ctrl-C.

Whatever ends this process ends what it started, and nothing else. State stays in `.millrace` until `make clean`.
Servers named in MILLRACE_KAFKA / MILLRACE_POSTGRES are used instead of own ones, and are left running.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator

import uvloop

from millrace_devstack import state
from millrace_devstack.errors import StackError
from millrace_devstack.options import Options, Programs
from millrace_devstack.stack import Stack

EXIT_HURRIED = 130
# One request to stop may come twice: from the terminal's process group, and passed on by make.
SAME_REQUEST_S = 1.0


async def _run(options: Options, programs: Programs, say: Callable[[str], None]) -> None:
    home = state.Home(options.home)
    with home.exclusive():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        first = 0.0

        def asked() -> None:
            nonlocal first
            if not stop.is_set():
                first = loop.time()
                stop.set()
            elif loop.time() - first > SAME_REQUEST_S:
                # Asked again: leave now. The kernel ends every child with us.
                home.dev_json.unlink(missing_ok=True)
                os._exit(EXIT_HURRIED)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, asked)
        await Stack(options, programs, home, say).run(stop)


def main(programs: Programs | None = None, *, say: Callable[[str], None] | None = None) -> int:
    """Run until told to stop. The exit code: 0 after an orderly end, 1 with the reason on stderr."""
    code = 0
    try:
        uvloop.run(_run(Options.from_environment(), programs or Programs(), say or _say))
    except* StackError as group:
        code = 1
        for error in _leaves(group):
            print(f"millrace dev: {error}", file=sys.stderr)
    return code


def _say(line: str) -> None:
    print(line, flush=True)


def _leaves(group: BaseExceptionGroup[StackError]) -> Iterator[StackError]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one
