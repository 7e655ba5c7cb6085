"""Target ``lane``: the client's protocol with its fast lane, against the same with the lane off.

Both are fed the same bytes, cut at the same places. After each piece they have given the same messages, counted the
same, and have the same bytes to send; they end at the same piece, for the same reason. Then the lane gets the same
stream cut in other ways: what comes of it in the end does not depend on that. One execution is one stream, cut in one
way. Where compression was negotiated there is no lane; there the same bytes fed in one go must give the same.

Both share what makes messages of frames; so of some streams the messages are also made here, out of the frames of the
``websockets`` core, by the shortest code that does it.

An input: a byte of settings, a byte for how many cuttings there are, of each a byte for how many cuts it has and two
for each of these, and the stream.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from struct import unpack_from

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from hypersockets._handshake import new_core
from hypersockets._stream_protocol import StreamProtocol
from hypersockets._transport import OpenRequest

from ._frames import LARGE, frame, make_frames, written_frames
from ._mutation import mutate
from ._target import Deviation, Found, Target

__all__ = ["LANE", "check"]

LIMITS = (300, None, 0, 16, 100, 126, 2**16, 2**24)
"""Of a message, by the lowest three bits of the settings."""
BYTES, LAZY, CLOSING, SKIPPING, DEFLATE = 0x08, 0x10, 0x20, 0x40, 0x80
"""Other bits: text is not decoded; replies are taken only at the end; we close after the first piece, and then throw
away what comes; compression was negotiated."""
BYTEWISE = 15
"""As the number of cuts: between all bytes."""
TRULY = 0x04
"""In the byte for the cuttings: the messages are made here too."""
NEWEST = 16
"""How many pongs wait at most, if they are not taken."""

_TEMPLATES = {limit: new_core(OpenRequest(url="ws://fuzz.test", max_message_size=limit)) for limit in LIMITS}


def _core(limit: int | None, deflate: bool) -> ClientProtocol:
    """Do what ``new_core`` does, at a tenth of the price: only what changes is made anew."""
    core = copy(_TEMPLATES[limit])
    core.reader, core.events, core.writes = StreamReader(), [], []
    core.extensions = [PerMessageDeflate(False, False, 15, 15)] if deflate else []
    core.parser = core.parse()
    next(core.parser)
    return core


def _protocol(settings: int, *, lane: bool) -> StreamProtocol:
    made = StreamProtocol(_core(LIMITS[settings & 7], bool(settings & DEFLATE)), not settings & BYTES)
    if not lane:
        made._lane = None
    return made


def _cuttings(data: bytes) -> tuple[list[list[int]], int]:
    """Return where each cutting of an input's stream cuts, both ends included, and where the stream begins."""
    found, at = [], 2
    for _ in range(1 + (data[1] & 3)):
        count = data[at] & 15 if at < len(data) else 0
        found.append((count, at + 1))
        at += 1 if count == BYTEWISE else 1 + 2 * count
    start, end = min(at, len(data)), len(data)
    size = end - start + 1
    if size == 1:  # no stream
        return [[start]] * len(found), start
    return [
        [*range(start, end + 1)]
        if count == BYTEWISE
        else sorted([start, end, *[start + place % size for place in unpack_from(f">{count}H", data, where)]])
        for count, where in found
    ], start


def _pieces(data: bytes, bounds: list[int]) -> list[bytes]:
    return [data[low:high] for low, high in zip(bounds, bounds[1:], strict=False) if low < high]


def check(data: bytes) -> tuple[str, int]:
    """Check one input; return what came of its stream, and in how many ways it was cut."""
    if len(data) < 2:
        return "no stream", 1
    settings, (cuttings, start) = data[0], _cuttings(data)
    core = _protocol(settings, lane=False)
    if settings & DEFLATE:
        messages, written = _replay(core, settings, [data[start:]])
        outcome = "deflate, " + _outcome(core, len(messages))
        limit = LIMITS[settings & 7]
        if limit is not None and any(len(each) > limit for each in messages):
            raise Deviation(f"a message is larger than {limit}")
    else:
        fast = _protocol(settings, lane=True)
        messages, written = [], []
        outcome = _compare(settings, _pieces(data, cuttings.pop(0)), fast, core, messages, written)
        _forget(fast)
        if settings & CLOSING:  # when that is depends on the cutting
            cuttings.clear()
    if data[1] & TRULY and not settings & CLOSING:
        _compare_with_frames(settings, data[start:], messages, core)
    for bounds in cuttings:
        again = _protocol(settings, lane=True)
        given, said = _replay(again, settings, _pieces(data, bounds))
        if given != messages or again.loss != core.loss or again.failed != core.failed:
            raise Deviation(f"cut at {bounds} gave {given!r} and {again.loss!r}, not {messages!r} and {core.loss!r}")
        is_late = again.failed and again.loss is not None and again.loss.code in (1007, 1009)
        if not is_late and said[-NEWEST:] != written[-NEWEST:]:  # late: pings behind it in the same piece are answered
            raise Deviation(f"cut at {bounds} wrote {said!r}, not {written!r}")
        _forget(again)
    _forget(core)
    return outcome, len(cuttings) + (not settings & DEFLATE)


def _forget(protocol: StreamProtocol) -> None:
    """Break up a cycle: to collect it as garbage would take longer."""
    vars(protocol._core).clear()


def _replay(
    protocol: StreamProtocol, settings: int, pieces: list[bytes]
) -> tuple[list[str | bytes], list[tuple[int, bytes]]]:
    """Feed it all pieces; return what it gave and what it wrote."""
    given: list[str | bytes] = []
    said: list[tuple[int, bytes]] = []
    for piece in pieces:
        given += protocol.feed(piece)
        if protocol.loss is not None:
            break
        if protocol.has_replies and not settings & LAZY:
            said += written_frames(protocol.take())
    else:
        protocol.end(None)
    return given, said + written_frames(protocol.take())


def _compare(
    settings: int,
    pieces: list[bytes],
    fast: StreamProtocol,
    core: StreamProtocol,
    messages: list[str | bytes],
    written: list[tuple[int, bytes]],
) -> str:
    """Feed both piece by piece; return what came of it, and fill in what was given and written."""
    is_closing = settings & CLOSING
    for number, piece in enumerate(pieces):
        if number and is_closing and settings & SKIPPING:
            outcome = _skip(fast, core, piece)
            if outcome:
                return outcome
            continue
        given, wanted = fast.feed(piece), core.feed(piece)
        if given != wanted or (given and [*map(type, given)] != [*map(type, wanted)]):
            raise Deviation(f"piece {number}: gave {given!r}, the core {wanted!r}")
        if fast.pongs != core.pongs or fast.frames != core.frames or fast.payload != core.payload:
            raise Deviation(f"piece {number}: counted {fast!r}, the core {core!r}")
        messages += given
        if fast.loss is not None or core.loss is not None:
            if fast.loss != core.loss or fast.failed != core.failed:
                raise Deviation(f"piece {number}: ended as {fast.loss!r}, the core as {core.loss!r}")
            break
        if not number and is_closing:
            fast.close(1000, "bye")
            core.close(1000, "bye")
        if (fast.has_replies or core.has_replies) and not settings & LAZY:
            _compare_written(fast, core, written)
    else:
        fast.end(None)
        core.end(None)
        if fast.loss != core.loss:
            raise Deviation(f"at the end: {fast.loss!r}, the core {core.loss!r}")
        if is_closing and settings & SKIPPING:  # a ping that it was in the middle of needs no answer
            return "skipped to the end"
    _compare_written(fast, core, written)
    return _outcome(core, len(messages))


def _skip(fast: StreamProtocol, core: StreamProtocol, piece: bytes) -> str:
    """Throw away what comes after our close frame: with and without the lane the peer's close frame is found."""
    fast.skip(piece)
    core.skip(piece)
    if core.failed or core._core.parser_exc is not None:
        return "skipped, broken"  # in the frame that it was in: the lane passes that by
    if fast.loss != core.loss:
        raise Deviation(f"after our close frame ended as {fast.loss!r}, the core as {core.loss!r}")
    return "" if core.loss is None else "skipped, closed"


def _compare_written(fast: StreamProtocol, core: StreamProtocol, written: list[tuple[int, bytes]]) -> None:
    given, wanted = written_frames(fast.take()), written_frames(core.take())
    if given != wanted:
        raise Deviation(f"wrote {given!r}, the core {wanted!r}")
    if fast.is_open != core.is_open:
        raise Deviation(f"open: {fast.is_open}, the core: {core.is_open}")
    written += given


def _compare_with_frames(settings: int, stream: bytes, messages: list[str | bytes], protocol: StreamProtocol) -> None:
    """Make the messages of a stream out of its frames (RFC 6455 sections 5.4 and 8.1), and see that they are these."""
    limit = LIMITS[settings & 7]
    core = _core(limit, bool(settings & DEFLATE))
    core.receive_data(stream)
    wanted: list[str | bytes] = []
    parts, is_text, code = b"", False, 0
    for each in core.events_received():
        assert isinstance(each, Frame)
        if each.opcode >= 8:
            continue
        is_text = each.opcode == 1 if each.opcode else is_text
        parts += each.data
        if limit is not None and len(parts) > limit:
            code = 1009
            break
        if each.fin:
            try:
                wanted.append(parts.decode() if is_text and not settings & BYTES else parts)
            except UnicodeDecodeError:
                code = 1007
                break
            parts = b""
    end = core.close_rcvd or core.close_sent
    code = code or (end.code if end else 0)
    vars(core).clear()
    assert protocol.loss is not None
    if wanted != messages or code != (protocol.loss.code or 0):
        raise Deviation(f"gave {messages!r} and {protocol.loss!r}; the frames are {wanted!r} and {code}")


def _outcome(protocol: StreamProtocol, messages: int) -> str:
    loss = protocol.loss
    assert loss is not None
    if loss.by == "network":
        end = "the end in the middle" if " middle " in loss.message else "the end"
    else:
        end = f"{loss.by} {loss.code}" if loss.code is None or loss.code < 3000 else f"{loss.by} 3000 or more"
    return f"{'messages' if messages else 'nothing'}, then {end}"


def inputs(rng: random.Random) -> Iterator[bytes]:
    """Yield streams of one to seven frames; of each some variants, cut differently, and most with a change or two."""
    draw, choices = rng.random, rng.choices
    while True:
        frames = make_frames(rng, 400)
        large = [frame(rng.choice((0x81, 0x82)), rng.choice((b"x", b"\xc3\xbc"))[:1] * size) for size in LARGE]
        for _ in range(1000):
            stream = b"".join(choices(frames, k=1 + int(draw() * draw() * 9)))
            if draw() < 0.002:
                stream += rng.choice(large) + rng.choice(frames)
            settings = 0 if draw() < 0.3 else int(draw() * 8)
            settings |= (draw() < 0.3) * BYTES | (draw() < 0.1) * LAZY | (draw() < 0.1) * DEFLATE
            if draw() < 0.04:
                settings |= CLOSING | (draw() < 0.5) * SKIPPING
            for variant in range(4):
                data = stream
                if variant:
                    for _ in range(1 + int(draw() * draw() * 3)):
                        data = mutate(data, rng, frames)
                ways = 1 if settings & CLOSING else 4
                truly = (draw() < 0.2) * TRULY
                head = bytes((settings, ways - 1 | truly)) + b"".join([_cutting(draw, len(data)) for _ in range(ways)])
                yield head + data


def _cutting(draw: Callable[[], float], size: int) -> bytes:
    """Return the head's part for one way to cut a stream."""
    count = int(draw() * 5)
    if count == 4:
        count = BYTEWISE if size < 100 and draw() < 0.1 else 4 + int(draw() * 9)
    return bytes((count,) if count == BYTEWISE else (count, *[int(draw() * 256) for _ in range(2 * count)]))


def check_all(data: Iterable[bytes], outcomes: Counter[str]) -> None:
    """Check each input."""
    for each in data:
        try:
            outcome, ways = check(each)
        except Exception as error:
            raise Found(each) from error
        outcomes[outcome] += ways


LANE = Target("lane", inputs, check_all)
