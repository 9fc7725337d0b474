"""Tiny stand-ins for the services, so that the runner behind `make dev` is tested without them.

`python -m tests.support.standin dev` is `make dev` with three of them; `service NAME` and `tool …` are what it starts.
A stand-in answers `/readyz` on its ops port and echoes on its HTTP port. A file `NAME.broken` in the home makes that
service die at once, `NAME.unready` keeps it unready, `tool.broken` fails the commands.
"""

import asyncio
import os
import sys
from pathlib import Path

from millrace_devstack import dev
from millrace_devstack.options import Programs

SERVICES = ("gateway", "matcher", "api")


def service_command(name: str) -> tuple[str, ...]:
    """How a stand-in service is started."""
    return (sys.executable, "-m", "tests.support.standin", "service", name)


def tool_command(*arguments: str) -> tuple[str, ...]:
    """How a stand-in command is started."""
    return (sys.executable, "-m", "tests.support.standin", "tool", *arguments)


async def _service(name: str) -> None:
    home = Path(os.environ["MILLRACE_STATE_DIR"]).parents[1]
    if (home / f"{name}.broken").exists():
        sys.exit("broken on purpose")
    unready = home / f"{name}.unready"

    async def ops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"503 Unready" if unready.exists() else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = name.encode() + b" " + head.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    await asyncio.start_server(ops, "127.0.0.1", int(os.environ["MILLRACE_OPS_PORT"]))
    if port := os.environ.get("MILLRACE_HTTP_PORT"):
        await asyncio.start_server(echo, "127.0.0.1", int(port))
    await asyncio.Event().wait()


def _tool(arguments: list[str]) -> None:
    home = Path(os.environ["MILLRACE_STATE_DIR"]).parents[1]
    with (home / "tools.txt").open("a") as file:
        file.write(" ".join(arguments) + "\n")
    if (home / "tool.broken").exists():
        sys.exit("the tool is broken on purpose")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["dev"]:
            sys.exit(dev.main(Programs(SERVICES, service_command, tool_command)))
        case ["service", name]:
            asyncio.run(_service(name))
        case ["tool", *arguments]:
            _tool(arguments)
