"""Streams that hand everything on to another, for tests that have something to say about a part of it."""

from __future__ import annotations

from anyio.abc import ByteStream

from hypersockets.testing import MemoryStream


class Through(ByteStream):
    """Hands everything on; what cannot wait it cannot send."""

    def __init__(self, inner: ByteStream) -> None:
        self.inner = inner

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self.inner.send(item)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Tapped(Through):
    """Hands everything on, and says what was written, with or without waiting."""

    inner: MemoryStream

    def __init__(self, inner: MemoryStream) -> None:
        super().__init__(inner)

    def written(self, data: bytes, *, at_once: bool) -> None:
        """Take note of bytes that are on the link now."""
        raise NotImplementedError

    async def send(self, item: bytes) -> None:
        await self.inner.send(item)
        self.written(item, at_once=False)

    def send_nowait(self, item: bytes) -> int:
        count = self.inner.send_nowait(item)
        self.written(item[:count], at_once=True)
        return count
