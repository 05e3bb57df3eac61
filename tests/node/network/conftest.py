"""Hosts that end at once: libp2p pauses for 0.1 s twice in each close, which no test here is about. And hosts that wait
for one another as long as it takes, but for those of a virtual clock."""

from __future__ import annotations

from functools import partial

import pytest
from libp2p.network.config import ConnectionConfig

from fakes.peers import PATIENCE_S, be_patient, hasten
from tallymesh_node.network import host


@pytest.fixture(autouse=True)
def _no_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "autojump_clock" in request.fixturenames:
        hasten(monkeypatch)
        return
    be_patient(monkeypatch)
    slow = partial(ConnectionConfig, inbound_upgrade_timeout=PATIENCE_S, outbound_upgrade_timeout=PATIENCE_S)
    monkeypatch.setattr(host, "ConnectionConfig", slow)
