"""What a script holds in its hands: one client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from http.client import responses
from typing import Any, NoReturn

import anyio
from anyio.abc import TaskGroup
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State

from ._conversation import Conversation, PeerClosed, abort
from ._link import Link
from ._peer_state import PeerState

__all__ = ["Peer"]

_CLOSE_TIMEOUT = 10.0


class Peer(PeerState):
    """The server's side of one connection, for the script that serves it.

    Pings and close frames are answered by themselves, whatever the script does. Everything that sends
    or receives raises :class:`PeerClosed` once the connection has ended. All times are the event loop's.
    """

    def __init__(self, number: int, conversation: Conversation, link: Link | None, tasks: TaskGroup) -> None:
        super().__init__(number, conversation, link)
        self._tasks = tasks
        self._is_raw = False  # bytes were sent before the handshake was accepted

    # The handshake

    async def accept(self, subprotocol: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Answer the handshake with 101. The first ``send``, ``receive`` and the like do it by themselves.

        Args:
            subprotocol: Chosen even if the client does not offer it; ``None`` leaves it to the server's list.
            headers: Added to the response, in place of those that it would have.

        Raises:
            PeerClosed: The request was no good: it got a 4xx.
        """
        self._talk.out.insert(0, self.accept_response(subprotocol, headers))
        await self._talk.flush()
        self._check_open()

    def accept_response(self, subprotocol: str | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        """Accept as :meth:`accept` does, but return the response for :meth:`send_raw` instead of sending it."""
        core, request = self._talk.core, self._check_unanswered()
        response = core.accept(request)
        chosen = {} if subprotocol is None else {"Sec-WebSocket-Protocol": subprotocol}
        for name, value in {**chosen, **(headers or {})}.items():
            response.headers.pop(name, None)
            response.headers[name] = value
        core.send_response(response)
        if response.status_code != 101:
            self._talk.shut_down(f"the handshake request got a {response.status_code}")
        head, *rest = core.data_to_send()
        self._talk.out += rest
        return head

    async def reject(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Answer the handshake with something else than 101, and end the connection.

        Args:
            status: Any HTTP status, redirects too.
            headers: Added to the response, in place of those that it would have.
            body: Its length is told in ``Content-Length``.
        """
        self._check_unanswered()
        fields = Headers({"Connection": "close", "Content-Length": str(len(body))})
        for name, value in (headers or {}).items():
            fields.pop(name, None)
            fields[name] = value
        self._talk.core.send_response(Response(status, responses.get(status, "Unknown"), fields, body))
        self._talk.queue()
        self._talk.shut_down(f"the handshake was rejected with {status}")
        await self._talk.flush()

    # Messages

    async def receive(self) -> str | bytes:
        """Wait for the next whole message: ``str`` is text.

        Raises:
            PeerClosed: The connection has ended, and all messages before that were received.
        """
        await self._accept_unless_done()
        talk = self._talk
        while talk.taken >= len(talk.received):
            if talk.end is not None:
                raise talk.closed()
            await talk.changed.wait()
        talk.taken += 1
        talk.changed.fire()
        return talk.received[talk.taken - 1]

    async def receive_json(self) -> Any:
        """Wait for the next message, and parse it."""
        return json.loads(await self.receive())

    async def send(self, message: str | bytes) -> None:
        """Send one message in one frame; ``str`` is text."""
        await self.send_many([message])

    async def send_json(self, value: object) -> None:
        """Send a value as a text message."""
        await self.send(json.dumps(value))

    async def send_many(self, messages: Iterable[str | bytes]) -> None:
        """Send messages in one write."""
        await self._ready()
        for message in messages:
            self._add(message)
        self._talk.queue()
        await self._talk.flush()

    async def send_fragments(self, fragments: Sequence[str | bytes], *, text: bool | None = None) -> None:
        """Send one message in several frames, in one write.

        Args:
            fragments: At least one.
            text: Whether it is a text message; ``None`` means: as the first fragment is.
        """
        await self._ready()
        core = self._talk.core
        is_text = isinstance(fragments[0], str) if text is None else text
        last = len(fragments) - 1
        for index, fragment in enumerate(fragments):
            data = fragment.encode() if isinstance(fragment, str) else fragment
            if index:
                core.send_continuation(data, fin=index == last)
            elif is_text:
                core.send_text(data, fin=index == last)
            else:
                core.send_binary(data, fin=index == last)
        self._talk.queue()
        await self._talk.flush()

    async def ping(self, data: bytes = b"") -> None:
        """Send a ping, without waiting for its pong; that will be in :attr:`pongs`."""
        await self._ready()
        self._talk.core.send_ping(data)
        self._talk.queue()
        await self._talk.flush()

    # Damage

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes. Before the handshake was accepted they stand in for that: only ``accept`` accepts then."""
        if self._talk.has_ended:
            raise self._talk.closed()
        self._is_raw = self._is_raw or self._talk.core.state is State.CONNECTING
        self._talk.queue(data)
        await self._talk.flush()

    async def send_half(self, message: str | bytes) -> None:
        """Send the first half of a message's frame, and never the rest. No close frame follows when the script ends."""
        await self._ready()
        self._talk.queue()
        self._add(message)
        whole = b"".join(self._talk.core.data_to_send())
        self._talk.is_torn = True
        self._talk.queue(whole[: len(whole) // 2])
        await self._talk.flush()

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame, wait for the reply (at most 10 s), end the connection. Once it has ended, do nothing.

        Args:
            code: A code that may be sent; ``None`` sends an empty close frame.
            reason: At most 123 bytes.
        """
        await self._accept_unless_done()
        talk = self._talk
        if talk.is_open:
            talk.core.send_close(code, reason)
            talk.queue()
            with anyio.move_on_after(_CLOSE_TIMEOUT):
                await talk.flush()
                while talk.end is None:
                    await talk.changed.wait()
            talk.shut_down("closed by the script")
        await self._hang_up()

    def cut(self) -> None:
        """End the connection without a close frame, after everything that was sent before."""
        self._talk.queue(b"")
        self._talk.shut_down("cut by the script")
        self._tasks.start_soon(self._talk.flush)

    def reset(self) -> None:
        """Break the connection at once: what the client has not read is lost."""
        self._talk.write_no_more()
        self._talk.shut_down("reset by the script")
        if self.link is not None:
            self.link.reset()
        else:
            self._tasks.start_soon(abort, self._talk.stream)

    async def mute(self) -> NoReturn:
        """Answer nothing from now on, not even pings, but go on reading, so that the client's writes succeed.

        Raises:
            PeerClosed: The client has ended its connection.
        """
        self._talk.is_mute = self._talk.is_drained = True
        self._talk.changed.fire()
        while not self._talk.is_over:
            await self._talk.changed.wait()
        raise self._talk.closed()

    async def stall(self) -> None:
        """Read nothing from now on, so that the client's writes come to a halt; lasts until the server ends."""
        self._talk.stop_reading()
        await anyio.sleep_forever()

    # The end

    async def finish(self) -> None:
        """End what the script has left open; called by the server."""
        talk = self._talk
        talk.is_drained = True
        talk.changed.fire()
        if not talk.is_torn:
            with suppress(PeerClosed):
                await self.close()
        await self._hang_up()
        with anyio.move_on_after(_CLOSE_TIMEOUT):
            while not talk.is_over:
                await talk.changed.wait()

    async def _hang_up(self) -> None:
        self._talk.queue(b"")
        with anyio.move_on_after(_CLOSE_TIMEOUT):
            await self._talk.flush()

    def _add(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._talk.core.send_text(message.encode())
        else:
            self._talk.core.send_binary(message)

    async def _ready(self) -> None:
        await self._accept_unless_done()
        self._check_open()

    async def _accept_unless_done(self) -> None:
        talk = self._talk
        if talk.core.state is State.CONNECTING and not talk.has_ended and not self._is_raw:
            await self.accept()

    def _check_unanswered(self) -> Request:
        if self._talk.has_ended:
            raise self._talk.closed()
        if self._talk.request is None or self._talk.core.state is not State.CONNECTING:
            raise RuntimeError("there is no handshake to answer: no request was read yet, or it was accepted already")
        return self._talk.request

    def _check_open(self) -> None:
        if self._talk.has_ended:
            raise self._talk.closed()
        if self._talk.core.state is not State.OPEN:
            raise RuntimeError("the handshake was not accepted: after send_raw nothing does that but accept")
