"""What makes pytest run each async test twice, on asyncio and on trio, each time with a clock of its own."""

from __future__ import annotations

from typing import Any

import pytest

from hypersockets.testing import virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)
