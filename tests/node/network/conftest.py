"""Hosts that end at once: libp2p pauses for 0.1 s twice in each close, which no test here is about. And hosts that wait
for one another as long as it takes, but for those of a virtual clock."""

from __future__ import annotations

import pytest

from fakes.peers import be_patient, hasten


@pytest.fixture(autouse=True)
def _no_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    (hasten if "autojump_clock" in request.fixturenames else be_patient)(monkeypatch)
