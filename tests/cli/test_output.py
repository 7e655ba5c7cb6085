"""Lines go out by a thread, and nothing waits for it that need not."""

from __future__ import annotations

import gc
import os
import threading
import warnings

import anyio
import anyio.to_thread

from hypersockets.cli._output import open_output


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hypersockets output"]


def test_after_an_error_lines_are_thrown_away(backend: str) -> None:
    """The error is told once, and neither `write` nor `flush` waits for what cannot be written."""
    told: list[str] = []
    reading, writing = os.pipe()
    os.close(reading)

    async def write() -> None:
        failed = anyio.Event()

        def on_error() -> None:
            told.append("error")
            failed.set()

        with os.fdopen(writing, "w") as stream:
            async with open_output(stream, on_error) as out:
                await out.write("x")
                await failed.wait()
                assert isinstance(out.error, BrokenPipeError)
                await out.write("y")
                await out.flush()

    anyio.run(write, backend=backend)
    assert told == ["error"]


def test_a_reader_that_has_gone_is_told_once(backend: str) -> None:
    """By whoever notices it first, though nothing is written: who waits at the pipe, or who writes after all."""
    told: list[str] = []

    async def write() -> None:
        gone = anyio.Event()

        def on_error() -> None:
            told.append("error")
            gone.set()

        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as stream:
            async with open_output(stream, on_error) as out:
                os.close(reading)
                await gone.wait()
                out._gone()
                assert isinstance(out.error, BrokenPipeError)

    anyio.run(write, backend=backend)
    assert told == ["error"]


def test_what_is_flushed_is_written(backend: str) -> None:
    """In order, with what the encoding does not know escaped."""
    reading, writing = os.pipe()

    async def write() -> None:
        with os.fdopen(writing, "w", encoding="ascii") as stream:
            async with open_output(stream) as out:
                for line in ("one", "tw\u00f6", "\udcff"):
                    await out.write(line)
                await out.flush()

    anyio.run(write, backend=backend)
    with os.fdopen(reading) as result:
        assert result.read() == "one\ntw\\xf6\n\\udcff\n"


def test_what_waits_is_bounded(backend: str) -> None:
    """Once about a mebibyte waits for a slow reader, `write` waits too, until there is room."""
    reading, writing = os.pipe()
    lines: list[int] = []

    async def write() -> None:
        async with open_output(stream) as out, anyio.create_task_group() as group:

            async def produce() -> None:
                for number in range(40):
                    await out.write("x" * 100_000)
                    lines.append(number)
                await out.flush()

            group.start_soon(produce)
            await anyio.wait_all_tasks_blocked()
            assert 1_000_000 < len(lines) * 100_000 < 1_500_000
            await anyio.to_thread.run_sync(result.read, 40 * 100_001)

    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as result:
        anyio.run(write, backend=backend)
    assert lines == list(range(40))


def test_leaving_at_any_moment_leaves_no_call_behind(backend: str) -> None:
    """A call that comes as the portal ends would be dropped with a warning, long after."""
    reading, writing = os.pipe()

    async def write() -> None:
        for _ in range(100):
            async with open_output(stream) as out:
                await out.write("x")

    with os.fdopen(reading), os.fdopen(writing, "w") as stream, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        anyio.run(write, backend=backend)
        gc.collect()
    assert not caught
    for thread in writers():
        thread.join(10)


def test_a_reader_that_never_reads_holds_nobody_up(backend: str) -> None:
    """Leaving does not wait for the thread; when the reader comes after all, the thread ends by itself."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")

    async def write() -> None:
        async with open_output(stream) as out:
            await out.write("x" * 1_000_000)

    anyio.run(write, backend=backend)
    (thread,) = writers()
    assert thread.daemon
    with os.fdopen(reading, "rb") as result:
        assert len(result.read(1_000_001)) == 1_000_001
        thread.join(10)
    assert not thread.is_alive()
    stream.close()
