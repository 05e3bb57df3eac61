"""One executor, with one warm template, for all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.sandboxed import INSIDE, SECRET, Machine, kept_alive


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALLYMESH_PASSWORD", SECRET)
        with kept_alive(tmp_path_factory.mktemp("sandbox"), slots=3, warm="attacker:warm", extra=[INSIDE]) as kept:
            yield kept
