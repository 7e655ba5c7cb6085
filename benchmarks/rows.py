"""The rows of the table: what runs against what, and what ratio is needed and wanted."""

from __future__ import annotations

from typing import Final, NamedTuple

from benchmarks.frames import BINARY_SIZE


class Side(NamedTuple):
    """One side of a pair: how to run it."""

    label: str
    module: str
    """In `benchmarks.peers`; for the import row, what is imported."""
    environment: str = "main"
    arguments: tuple[str, ...] = ()


class Row(NamedTuple):
    """One row."""

    id: str
    work: str
    mode: str
    """The path of the server; `idle` has a server of its own, `import` needs none."""
    ours: Side
    theirs: Side
    needed: float | None = None
    wanted: float | None = None
    metric: str = "rate"
    cpu_metric: str | None = "rate_cpu"
    unit: str = "messages/s"
    scale: float = 1
    """From the metric, as the peers report it, to the unit."""
    less_is_better: bool = False
    tls: bool = False
    arguments: tuple[str, ...] = ()
    """For both sides."""
    least_pairs: int = 7
    most_pairs: int = 99

    @property
    def is_extra(self) -> bool:
        """Whether the row is for information only."""
        return self.needed is None


OURS = Side("hypersockets", "ours")
OURS_TRIO = Side("hypersockets on trio", "ours", arguments=("--backend=trio",))
OURS_TRIO_WEBSOCKET = Side(
    "hypersockets, transport trio-websocket", "ours", arguments=("--backend=trio", "--transport=trio-websocket")
)
FAST_LANE = Side("our transport alone", "fast_lane")
WEBSOCKETS = Side("websockets", "websockets_asyncio")
WEBSOCKETS_TRIO = Side("websockets on trio", "websockets_trio")
TRIO_WEBSOCKET = Side("trio-websocket", "trio_websocket_client")
AIOHTTP = Side("aiohttp", "aiohttp_client", "aiohttp")
PICOWS = Side("picows callbacks", "picows_callbacks", "picows")
HTTPX_WS = Side("httpx-ws", "httpx_ws_client", "httpx-ws")
NAUTILUS = Side("nautilus_trader", "nautilus_client", "nautilus")


def _text(name: str, theirs: Side, needed: float | None, wanted: float | None, ours: Side = OURS) -> Row:
    return Row(f"text-{name}", "ingest, 256 B text", "text", ours, theirs, needed, wanted)


def _bytes(name: str, theirs: Side, needed: float, wanted: float) -> Row:
    work = "ingest, 16 KiB binary"
    scale = BINARY_SIZE / 2**20
    return Row(f"binary-{name}", work, "binary", OURS, theirs, needed, wanted, unit="MiB/s", scale=scale)


def _echo(name: str, ours: Side, theirs: Side, needed: float, wanted: float) -> Row:
    work = "echo round trip p50, 64 B"
    return Row(f"echo-{name}", work, "echo", ours, theirs, needed, wanted, "p50", "p50_cpu", "us", less_is_better=True)


ROWS: Final = (
    _text("websockets", WEBSOCKETS, 3.5, 5),
    _text("aiohttp", AIOHTTP, 1, 1.3),
    _text("websockets-trio", WEBSOCKETS_TRIO, 6.5, 10, OURS_TRIO),
    _text("trio-websocket", TRIO_WEBSOCKET, 16, 25, OURS_TRIO),
    _text("nautilus", NAUTILUS, 20, 30),
    _text("picows", PICOWS, 0.33, 0.5),
    _text("fast-lane", FAST_LANE, 0.55, 0.75),
    _text("httpx-ws", HTTPX_WS, None, None),
    Row("varied-websockets", "ingest, text of 16 B to 4 KiB", "varied", OURS, WEBSOCKETS),
    Row("json-websockets", "ingest, 256 B JSON, orjson, 100 keys", "json", OURS, WEBSOCKETS, 2.2, 3),
    _bytes("websockets", WEBSOCKETS, 1, 1.3),
    _bytes("aiohttp", AIOHTTP, 0.4, 0.9),
    Row("deflate-websockets", "ingest, 256 B, permessage-deflate", "deflate", OURS, WEBSOCKETS, 1, 1.3),
    Row("tls-websockets", "ingest, 256 B text over TLS", "text", OURS, WEBSOCKETS, 1.3, 2, tls=True),
    _echo("websockets", OURS, WEBSOCKETS, 1.3, 1),
    _echo("trio-websocket", OURS_TRIO, TRIO_WEBSOCKET, 0.8, 0.6),
    Row("send-websockets", "send, 256 B, 100 senders at once", "sink", OURS, WEBSOCKETS, 1, 2),
    Row(
        "memory-websockets",
        "memory per idle client, 5 000 clients",
        "idle",
        OURS,
        WEBSOCKETS,
        4,
        2.5,
        metric="memory",
        cpu_metric=None,
        unit="KiB",
        scale=1 / 1024,
        less_is_better=True,
        least_pairs=3,
        most_pairs=3,
    ),
    Row(
        "cpu-websockets",
        "CPU of 5 000 idle clients, 30 s pings",
        "idle",
        OURS,
        WEBSOCKETS,
        1.2,
        0.8,
        metric="cpu",
        cpu_metric=None,
        unit="% of a core",
        less_is_better=True,
        arguments=("--ping=30", "--hold=60"),  # two pings of each client
        least_pairs=2,
        most_pairs=2,
    ),
    Row(
        "import",
        "import time, fresh interpreter",
        "import",
        Side("import hypersockets", "hypersockets"),
        Side("import websockets.asyncio.client", "websockets.asyncio.client"),
        1.2,
        0.8,
        metric="import",
        cpu_metric="import_cpu",
        unit="ms",
        scale=1000,
        less_is_better=True,
        least_pairs=15,
    ),
    Row(
        "transport-trio-websocket",
        "ingest, 256 B text, on its transport",
        "text",
        OURS_TRIO_WEBSOCKET,
        TRIO_WEBSOCKET,
        0.8,
        0.95,
    ),
)
