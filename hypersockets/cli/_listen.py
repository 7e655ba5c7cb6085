"""``hypersockets listen URL``: one message per line on standard output, events on standard error."""

from __future__ import annotations

import base64
import json
import re
import sys
import time

import anyio

import hypersockets as hs

from .._redact import mask_text
from ._output import Output, open_output
from ._words import in_words

__all__ = ["as_line", "listen"]

_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""Line breaks, and control characters, which could rule a terminal; a tab is harmless."""


def as_line(message: str | bytes) -> str:
    """Return a message as one line.

    Text stands as it came; with line breaks or control characters in it, as a JSON string. Binary is base64.
    """
    if isinstance(message, bytes):
        return "base64:" + base64.b64encode(message).decode("ascii")
    return json.dumps(message) if _UNPRINTABLE.search(message) else message


async def listen(config: hs.ClientConfig, asked: anyio.Event) -> int:
    """Print what comes until ``asked`` is set, the reader goes away, or the connection ends for good.

    Returns:
        The exit code: 0 for a clean end, 1 for a failure, 2 for a setting that turned out not to work.
    """
    code, last_words = 0, ""
    async with open_output(sys.stderr) as log, open_output(sys.stdout, on_error=asked.set) as out:
        # Around the connection, not within: what was received is printed, whatever ended the connection.
        async with anyio.create_task_group() as printing:
            try:
                async with hs.connect(config, wait_ready=False) as client, anyio.create_task_group() as closing:
                    events, messages = client.events(), aiter(client)
                    printing.start_soon(_print_events, events, log)
                    printing.start_soon(_print_messages, messages, out)
                    closing.start_soon(_close_when, asked, client)
                    await client.wait_closed()
                    closing.cancel_scope.cancel()
            except hs.HyperSocketError as error:
                code, last_words = (2 if isinstance(error, hs.ConfigurationError) else 1), str(error)
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            code, last_words = 1, f"standard output: {out.error.strerror}"
        if code:
            await log.write(f"hypersockets: {mask_text(last_words, limit=400)}")
        await log.flush()
    return code


async def _close_when(asked: anyio.Event, client: hs.Client) -> None:
    await asked.wait()
    await client.aclose()


async def _print_events(events: hs.EventListener, log: Output) -> None:
    async for event in events:
        what, words = in_words(event)
        await log.write(f"# {time.strftime('%H:%M:%S')}  {what:<14} {words}")


async def _print_messages(messages: hs.MessageStream, out: Output) -> None:
    try:
        async for message in messages:
            await out.write(as_line(message))
    except hs.ClientClosedError:
        pass  # why is what `connect` raises
    await out.flush()
