"""Hosts that end at once: libp2p pauses for 0.1 s twice in each close, which no test here is about."""

from __future__ import annotations

import pytest

from fakes.peers import hasten


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
