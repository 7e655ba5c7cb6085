"""picows: a callback per frame, which makes a `str` of the payload, as all the others do."""

from __future__ import annotations

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.peers._probe import Probe, expected_of, options


class Listener(WSListener):  # type: ignore[misc]
    """Counts."""

    count = 0
    text = ""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.text = frame.get_payload_as_utf8_text()
            self.count += 1
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


async def main() -> None:
    chosen = options()
    transport, listener = await ws_connect(Listener, chosen.url)
    probe = Probe(chosen, lambda: listener.count)
    probe.start()
    await transport.wait_disconnected()
    probe.finish(listener.count - 1, expected_of(listener.text), "picows")


if __name__ == "__main__":
    asyncio.run(main())
