"""Ending things without a trace, in bounded time."""

from __future__ import annotations

import sys

import anyio
import pytest
from anyio.abc import ByteStream

from hypersockets._endings import PlainGroup, cut, cut_reason, linger, network_loss, own_loss
from hypersockets.testing import wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.anyio


class Stubborn(ByteStream):
    """A stream whose closing takes for ever, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.received = 0

    async def aclose(self) -> None:
        if self.error is not None:
            raise self.error
        await anyio.sleep_forever()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.received += 1
        await anyio.sleep(0.1)
        if self.error is not None and self.received > 3:
            raise self.error
        return b"x"

    async def send(self, item: bytes) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        raise NotImplementedError


class TestPlainGroup:
    async def test_children_end_with_the_block(self) -> None:
        """They are cancelled, and their cleanup is waited for."""
        ended = []

        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                ended.append(anyio.current_time())

        started = anyio.current_time()
        async with PlainGroup() as tasks:
            tasks.start_soon(child)
            await anyio.sleep(1)
        assert ended == [pytest.approx(started + 2)]

    @pytest.mark.parametrize("error", [RuntimeError(), ExceptionGroup("mine", [ValueError()]), KeyError("x")], ids=repr)
    async def test_the_blocks_exception_comes_out_as_itself(self, error: Exception) -> None:
        """With children or without, the same object."""
        for children in (0, 2):
            with pytest.raises(type(error)) as caught:
                async with PlainGroup() as tasks:
                    for _ in range(children):
                        tasks.start_soon(anyio.sleep_forever)
                    raise error
            assert caught.value is error

    async def test_cancellation_passes_through(self) -> None:
        """The block's own cleanup runs, children end, the scope that was cancelled catches it."""
        with anyio.CancelScope() as scope:
            async with PlainGroup() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                await wait_all_tasks_blocked()
                scope.cancel()
                await anyio.sleep_forever()
            raise AssertionError("not reached")
        assert scope.cancelled_caught

    async def test_an_exception_while_cancelled_comes_out_as_itself(self) -> None:
        """An error raised by the block's cleanup is not replaced by the cancellation."""
        with anyio.CancelScope() as scope:
            with pytest.raises(RuntimeError, match="cleanup"):
                async with PlainGroup() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                    scope.cancel()
                    raise RuntimeError("cleanup")
        assert not scope.cancelled_caught

    async def test_a_child_that_raises_is_heard(self) -> None:
        """That is a bug, and must not be hidden."""

        async def child() -> None:
            raise LookupError

        with pytest.raises(BaseExceptionGroup):
            async with PlainGroup() as tasks:
                tasks.start_soon(child)


class TestCut:
    async def test_it_is_bounded_even_when_cancelled(self) -> None:
        """A stream that does not want to close gets a second."""
        started = anyio.current_time()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await cut(Stubborn())
        assert anyio.current_time() - started == pytest.approx(1)

    @pytest.mark.parametrize("error", [OSError(), anyio.BrokenResourceError(), anyio.ClosedResourceError()], ids=repr)
    async def test_a_broken_stream_is_closed_enough(self, error: Exception) -> None:
        """Nothing is raised."""
        await cut(Stubborn(error))


class TestLinger:
    async def test_it_is_bounded(self) -> None:
        """A peer that goes on sending is read for a second."""
        stream = Stubborn()
        started = anyio.current_time()
        await linger(stream)
        assert anyio.current_time() - started == pytest.approx(1)
        assert stream.received >= 9

    @pytest.mark.parametrize("error", [anyio.EndOfStream(), OSError()], ids=repr)
    async def test_it_ends_with_the_stream(self, error: Exception) -> None:
        """That is what it waits for."""
        stream = Stubborn(error)
        await linger(stream)
        assert stream.received == 4


def test_reasons_fit_into_a_close_frame() -> None:
    """123 bytes, cut between characters."""
    assert cut_reason("short") == "short"
    assert cut_reason("x" * 200) == "x" * 123
    assert cut_reason("é" * 100) == "é" * 61
    assert cut_reason("\udfff") == "?"


def test_texts_of_losses() -> None:
    """What broke a stream is told by its cause, if that says something."""
    broken = anyio.BrokenResourceError()
    assert str(network_loss("", broken).error()) == "the connection broke: reset"
    broken.__cause__ = OSError(104, "reset by peer")
    assert str(network_loss("a frame", broken).error()) == (
        "the connection broke in the middle of a frame: [Errno 104] reset by peer"
    )
    assert own_loss(None).error().args == ("cut by us",)
    assert own_loss(4000).error().args == ("closed by us with 4000",)
