"""What users hold: the client."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel

from ._bell import Bell
from ._checks import check_close, check_url
from ._config import ClientConfig
from ._core import Core
from ._errors import NotConnectedError, SubscriptionError
from ._events import Event
from ._lanes import stream_route
from ._message import Frame, as_message
from ._metrics import Metrics
from ._requesting import reply_to
from ._scopes import ask_for, forget, scoped
from ._state import ConnectionState
from ._streams import EventListener, MessageStream
from ._subscriptions import Subscription, SubscriptionMessage, as_subscription
from ._supervisor import Supervisor
from ._workers import Call, current_call

__all__ = ["Client", "current_client"]


class Client:
    """A connection that survives. Made by :func:`connect`; every method may be called from any task."""

    def __init__(self, config: ClientConfig) -> None:
        self._core = Core(config)
        self._supervisor = Supervisor(self._core, self)
        self._listener: EventListener | None = None
        """The client's own. ``None`` until somebody asks for its events."""
        self._main: MessageStream | None = None

    # Sending.

    async def send(self, message: Frame, *, wait: bool = True, text: bool | None = None) -> None:
        """Hand a whole message to the socket of a ready session.

        While none is ready it waits, in order; a cancel scope is the time limit. Cut off half-way by a loss,
        the message is sent on the next session. Cancelled before its first byte it is not sent; after, the
        session finishes the frame without its caller.

        Args:
            message: ``str`` goes as text, ``bytes`` as binary.
            wait: ``False``: do not wait for a session.
            text: ``True`` sends bytes as text, ``False`` a string as binary.

        Raises:
            NotConnectedError: With ``wait=False``, when no session is ready.
            ClientClosedError: The client is closed.
            TypeError: Not a message.
            ValueError: Text that is not valid Unicode.
        """
        core = self._core
        frame = as_message(message, text=text)
        from_handler = self._handler_call() is not None
        core.must_be_open(from_handler=from_handler and core.session is None)
        if not wait and core.session is None:
            raise NotConnectedError(f"no session of {core.name} is ready ({core.state.name})")
        await core.outbox.send(frame, is_bound=not wait, from_handler=from_handler)

    async def request(
        self,
        message: Frame,
        *,
        match: Callable[[Any], bool] | None = None,
        reply_key: Hashable = None,
        timeout: float | timedelta,
        retry: bool = False,
        text: bool | None = None,
    ) -> Any:
        """Send a message and return the first one, parsed, that is the reply to it; that is not routed.

        Any number may be in flight. A message answers one request: the oldest of those that claim it. By
        ``reply_key`` it is found by one look-up, however many are in flight; by ``match`` each is asked. As
        :meth:`send` it waits for a session; inside a handler, too.

        Args:
            message: As for :meth:`send`.
            match: A plain function: whether a parsed message is the reply. Either this or ``reply_key``.
            reply_key: The id of the reply, as :attr:`ClientConfig.reply_key` finds it in a parsed message.
            timeout: Seconds from the call on, waiting for a session included; a ``timedelta`` is taken too.
            retry: After a loss send it again on the next session; without it, what the loss hit after it was sent
                fails, for the server may have acted on it. What was not sent whole goes out on the next session in
                any case.
            text: As for :meth:`send`.

        Raises:
            RequestTimeoutError: No reply within ``timeout``; a later one is routed as usual.
            ConnectionLostError: The session was lost after the message was sent, and ``retry`` is not set.
            ClientClosedError: The client is closed, or is closing: nothing more is read then.
            ConfigurationError: ``reply_key`` without the field of the configuration; a bad ``timeout`` or ``match``.
            TypeError, ValueError: Not a message; not one of ``match`` and ``reply_key``.
        """
        return await reply_to(
            self._core,
            as_message(message, text=text),
            match=match,
            reply_key=reply_key,
            timeout=timeout,
            retry=retry,
            from_handler=self._called_by_handler(),
        )

    # Subscriptions.

    async def subscribe(self, entry: Subscription | SubscriptionMessage) -> None:
        """Want a subscription, now and on every later connection.

        While a session is ready this returns when it is confirmed (sent, if it has no ``ack``; after a loss:
        when the next session has confirmed it); while none is, at once. Cancelled, the entry stays wanted.
        A key that is wanted already is not asked for again.

        Raises:
            SubscriptionRefusedError: Refused; it is no longer wanted.
            SubscriptionTimeoutError: No ack within ``subscribe_timeout``; it is no longer wanted, and as the server
                may only be slow, it is sent the ``unsubscribe`` message.
            ClientClosedError: The client is closed.
        """
        self._core.must_be_open()
        wanted = self._core.subscriptions.want(as_subscription(entry))
        await ask_for(self._core, self._supervisor, wanted, from_handler=self._called_by_handler())

    async def unsubscribe(self, key: Hashable) -> None:
        """Want a subscription no longer; if it has an ``unsubscribe`` message and a session knows it, send that.

        Blocks that have it keep what they have received: their iteration ends behind that. A key that is not
        wanted is none of the server's business either: nothing happens.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._core.must_be_open()
        wanted = self._core.subscriptions.get(key)
        if wanted is not None:
            self._core.subscriptions.drop(wanted)
            forget(self._supervisor, wanted)
        await anyio.lowlevel.checkpoint()

    async def resubscribe(self, key: Hashable) -> None:
        """Unsubscribe and subscribe again, for a state that has to be rebuilt.

        Raises:
            SubscriptionError: No such subscription is wanted; or as :meth:`subscribe`.
            ClientClosedError: The client is closed.
        """
        self._core.must_be_open()
        wanted = self._core.subscriptions.get(key)
        if wanted is None:
            raise SubscriptionError(f"no subscription with the key {key!r} is wanted")
        self._supervisor.withdraw(wanted)
        await ask_for(self._core, self._supervisor, wanted, from_handler=self._called_by_handler())

    def subscription(
        self, entry: Subscription | SubscriptionMessage, **options: Any
    ) -> AbstractAsyncContextManager[MessageStream]:
        """Want a subscription for as long as a block lasts: ``async with client.subscription(entry) as stream``.

        The stream has the messages of that key, across reconnects. Entering waits as :meth:`subscribe` does; if it
        fails or is cancelled, nothing is left. Leaving unsubscribes, unless the key is wanted otherwise: blocks
        share one subscription, and each has every message in a lane of its own. Leaving waits for nothing; what
        the block has not read is dropped, and counted.

        Args:
            entry: As for :meth:`subscribe`. Messages are found by its key, which must be their route key.
            **options: ``capacity``, ``overflow``, ``conflate``, ``stale_after``, as in :class:`Route`.

        Raises:
            RuntimeError: (On entering.) The key has a handler.
            ConfigurationError: An option out of range.
            SubscriptionError, ClientClosedError: (On entering.) As :meth:`subscribe`.
        """
        route = stream_route(**options)
        return scoped(self._core, self._supervisor, as_subscription(entry), route, self._called_by_handler)

    # Messages and events.

    def messages(self, key: Hashable, **options: Any) -> MessageStream:
        """Return the stream of messages with that key, across reconnects; the same one each time.

        Args:
            key: A route key without a handler.
            **options: ``capacity``, ``overflow``, ``conflate``, ``stale_after``, as in :class:`Route`; they count
                when the stream is opened.

        Raises:
            RuntimeError: The key has a handler.
            ConfigurationError: An option out of range.
        """
        lane = self._core.lanes.open_stream(key, stream_route(**options))
        lane.last_put = anyio.current_time()
        self._core.silence_begins()
        return MessageStream(lane, self._core.iteration_end, self._core.lanes.close_stream)

    def __aiter__(self) -> MessageStream:
        """Iterate over all messages, across reconnects, where there are no handlers."""
        lane = self._core.lanes.main
        if lane is None:
            raise RuntimeError(
                "this client has handlers, which get the messages; use client.messages(key) for a key without one"
            )
        if self._main is None:
            self._main = MessageStream(lane, self._core.iteration_end, self._core.lanes.drop)
        return self._main

    def events(self) -> EventListener:
        """Return a listener: ``async for``, from the oldest event kept to ``Closed``."""
        return EventListener(self._core.log)

    def try_recv_event(self) -> Event | None:
        """Return the next event of the client's own listener, or ``None`` if there is none now."""
        return self._own_listener().next_nowait()

    async def recv_event(self) -> Event:
        """Wait for the next event of the client's own listener.

        Raises:
            ClientClosedError: ``Closed`` was read already.
        """
        try:
            return await self._own_listener().__anext__()
        except StopAsyncIteration:
            raise self._core.closed_error() from self._core.failure

    def _own_listener(self) -> EventListener:
        self._listener = self._listener or EventListener(self._core.log)
        return self._listener

    # State.

    def metrics(self) -> Metrics:
        """Return the numbers as they are now."""
        return self._core.metrics()

    @property
    def connection_state(self) -> ConnectionState:
        """The state of the connection."""
        return self._core.state

    @property
    def is_connected(self) -> bool:
        """Whether a session is ready: authenticated, subscribed, and not known to be lost."""
        return self._core.state is ConnectionState.CONNECTED

    @property
    def epoch(self) -> int:
        """How many sessions have been ready: 1 in the first."""
        return self._core.epoch

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose for the ready session."""
        return None if self._core.session is None else self._core.session.subprotocol

    async def wait_connected(self) -> None:
        """Wait until a session is ready.

        Raises:
            ClientClosedError: The client has ended.
        """
        await self._wait(lambda: self.is_connected)

    async def wait_closed(self) -> None:
        """Wait until the client has ended; inside a handler, which that waits for, until the closing begins.

        Raises:
            ClientClosedError: It failed; the failure is the ``__cause__``.
        """
        call = self._handler_call()
        core = self._core
        await self._wait(
            lambda: (
                core.has_ended
                or (call is not None and (core.state is ConnectionState.CLOSING or call.close is not None))
            )
        )

    async def _first_ready(self) -> None:
        """Wait until a session has been ready, if only for a moment."""
        await self._wait(lambda: self._core.epoch > 0)

    async def _wait(self, is_so: Any) -> None:
        bell = Bell()
        call = self._handler_call()
        self._core.watchers.append(bell)
        try:
            await anyio.lowlevel.checkpoint()
            while not is_so():
                self._core.must_be_open(from_handler=call is not None)
                if call is not None and call.close is not None:  # nothing will come before the handler has returned
                    raise self._core.closed_error()
                await bell.wait()
            if self._core.failure is not None and self._core.has_ended:
                raise self._core.closed_error()
        finally:
            self._core.watchers.remove(bell)

    async def reconnect(self, reason: str = "", *, code: int = 1000) -> None:
        """Lose the session on purpose and come back by the usual timeline; returns at once.

        Where no session is ready, one is being made already and nothing happens.

        Args:
            reason: For the close frame and the event, at most 123 bytes of UTF-8.
            code: The close code.

        Raises:
            ValueError: A code or reason that cannot be sent.
            ClientClosedError: The client is closed.
        """
        check_close(code, reason)
        self._core.must_be_open()
        self._supervisor.reconnect(reason, code)
        await anyio.lowlevel.checkpoint()

    async def rotate(self, url: str | None = None) -> None:
        """Let a new connection take over from the one that works, without a gap.

        The new one is opened, authenticated and subscribed while the old one still delivers; then it takes over
        what is sent, and the old one is closed: all that comes before the peer's close frame (waited for at most
        ``close_timeout``) is handled first. With ``rotation="break-before-make"`` the old one is closed before.
        Returns when the new session has taken over; cancelled, the rotation goes on.

        Args:
            url: Where to; ``None``: as the configuration says.

        Raises:
            NotConnectedError: No session is ready.
            HyperSocketError: What kept the new session from becoming ready; the old one goes on.
            ConfigurationError: A URL that cannot be, or a transport that cannot do this.
            ClientClosedError: The client is closed.
        """
        if url is not None:
            check_url("url", url)
        self._core.must_be_open(from_handler=self._called_by_handler())
        await self._supervisor.rotate(url)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close as leaving the context does, and wait for the end; any number of times.

        From inside a handler it returns at once, and closing starts when the handler has returned.

        Raises:
            ValueError: A code or reason that cannot be sent.
        """
        check_close(code, reason)
        call = self._handler_call()
        if call is not None:
            call.close = call.close or (code, reason)
            await anyio.lowlevel.checkpoint()
            return
        self._supervisor.close(code, reason)
        bell = Bell()
        self._core.watchers.append(bell)
        try:
            while not self._core.has_ended:
                await bell.wait()
        finally:
            self._core.watchers.remove(bell)

    def _handler_call(self) -> Call | None:
        """Return the call of a handler of this client in which this is asked."""
        call = current_call.get()
        return call if call is not None and call.client is self and call.is_running else None

    def _called_by_handler(self) -> bool:
        return self._handler_call() is not None

    def __repr__(self) -> str:
        core = self._core
        since = core.counters.connected_since
        up = ""
        if since is not None:
            try:
                up = f" up={anyio.current_time() - since:.1f}s"
            except RuntimeError:  # printed outside the event loop
                up = ""
        return f"<Client {core.name} {core.state.name}{up} epoch={core.epoch}>"


def current_client() -> Client:
    """Return the client whose handler is running.

    Raises:
        RuntimeError: No handler is.
    """
    call = current_call.get()
    if call is None:
        raise RuntimeError("current_client() is for handlers: no handler is running here")
    assert isinstance(call.client, Client)  # workers are started by clients alone
    return call.client
