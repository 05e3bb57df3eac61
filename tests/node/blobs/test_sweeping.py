"""What nobody can ask for any more is dropped; evidence outlives every window."""

from __future__ import annotations

import os
from pathlib import Path

from tallymesh.ids import BlobId
from tallymesh.parameters import Parameters
from tallymesh_ledger import windows
from tallymesh_node.blobs import BlobStore
from tallymesh_node.blobs.sweeping import YOUNG_S, Sweeper

LATER = 10.0  # seconds after a blob is old


class Yard:
    def __init__(self, folder: Path) -> None:
        self.store = BlobStore(folder)
        self.held: set[BlobId] = set()
        self.wanted: set[BlobId] = set()
        self.busy = False
        self.after_s = YOUNG_S + LATER
        self.sweeper = Sweeper(
            self.store,
            self._held,
            wanted=self.wanted.__contains__,
            busy=lambda: self.busy,
            clock=lambda: os.stat(folder).st_ctime + self.after_s,
        )

    async def _held(self) -> set[BlobId]:
        return self.held


async def test_only_what_no_role_stands_for_is_dropped(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    seat, open_seat = yard.store.put(b"evidence"), yard.store.put(b"input")
    yard.store.put(b"of a job long over")
    yard.held.add(seat)
    yard.wanted.add(open_seat)
    pinned = yard.store.put(b"pinned by the owner")
    yard.store.pin(pinned)
    await yard.sweeper.sweep()
    assert set(yard.store) == {seat, open_seat, pinned}
    assert yard.sweeper.dropped == 1


async def test_a_blob_that_just_came_stays(tmp_path: Path) -> None:
    """It may be for an audit on chain, which lasts a day."""
    yard = Yard(tmp_path)
    yard.after_s = YOUNG_S - LATER
    blob = yard.store.put(b"fetched for an audit")
    await yard.sweeper.sweep()
    assert set(yard.store) == {blob}


async def test_nothing_is_dropped_while_an_audit_runs(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    blob = yard.store.put(b"its input, here for a week")
    yard.busy = True
    await yard.sweeper.sweep()
    assert set(yard.store) == {blob}


async def test_what_is_begun_during_a_sweep_keeps_its_blobs(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    blobs = [yard.store.put(b"%d" % number) for number in range(3)]
    has = yard.store.has

    def a_lease_comes(blob: BlobId) -> bool:
        yard.wanted.update(blobs)
        return has(blob)

    yard.store.has = a_lease_comes  # type: ignore[method-assign]
    await yard.sweeper.sweep()
    assert set(yard.store) == set(blobs)


def test_evidence_is_kept_for_a_case_that_uses_up_every_deadline() -> None:
    p = Parameters()
    panel = p.court_commit_s + p.court_reveal_s
    assert windows.case_s(p) == 40 * p.court_move_s + 2 * 4 * panel + p.court_appeal_s
    assert windows.evidence_s(p) == p.lock_tail_s + windows.case_s(p)
    # stake that was released while it could still be taken is there until then
    assert windows.evidence_s(p) + p.claim_window_s + p.lease_max_s < p.unbonding_s
