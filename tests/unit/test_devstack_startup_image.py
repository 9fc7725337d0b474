"""The JVM's start-up image is derived data: made once, made anew when damaged, done without when it cannot be made."""

import asyncio
from pathlib import Path

import pytest

from millrace_devstack import startup_image
from millrace_devstack.errors import StackError


class Maker:
    """Writes what it is told to, and counts."""

    def __init__(self, content: bytes | None = b"image") -> None:
        self.made = 0
        self._content = content

    async def __call__(self, part: Path) -> None:
        self.made += 1
        await asyncio.sleep(0)
        if self._content is not None:
            part.write_bytes(self._content)


async def test_it_is_made_once_also_when_several_ask(tmp_path: Path) -> None:
    image, maker = tmp_path / "cache" / "kafka.aot", Maker()
    assert await asyncio.gather(*(startup_image.ensure(image, maker) for _ in range(3))) == [image] * 3
    assert maker.made == 1
    assert image.read_bytes() == b"image"


async def test_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    image, maker = tmp_path / "kafka.aot", Maker()
    await startup_image.ensure(image, maker)
    image.write_bytes(b"imag")
    assert await startup_image.ensure(image, maker) == image
    assert maker.made == 2
    assert image.read_bytes() == b"image"


async def test_a_jvm_that_writes_none_is_done_without(tmp_path: Path) -> None:
    assert await startup_image.ensure(tmp_path / "kafka.aot", Maker(None)) is None


async def test_a_broker_that_does_not_start_for_it_is_done_without(tmp_path: Path) -> None:
    async def fails(part: Path) -> None:
        raise StackError("no room")

    assert await startup_image.ensure(tmp_path / "kafka.aot", fails) is None
    assert not list(tmp_path.glob("*.part"))


async def test_a_cancelled_making_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def hangs(part: Path) -> None:
        part.write_bytes(b"half")
        begun.set()
        await asyncio.Event().wait()

    making = asyncio.ensure_future(startup_image.ensure(tmp_path / "kafka.aot", hangs))
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "kafka.aot").exists()
