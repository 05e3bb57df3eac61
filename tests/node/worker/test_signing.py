"""kill -9 at every write of the signing path: nothing leaves before it is on disk, and whatever a payer then tries, it
never holds two words of an honest worker with different leaves for one position."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fakes.chain import DOMAINS
from fakes.journal import MemoryJournal
from fakes.worker_scene import Node, Payer, Scene
from tallymesh import exchange, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import LeaseAnswer, LeaveRequest, Nothing, ReceiptRequest, TallyAnswer, TallyRequest
from tallymesh.messages import Lease, Receipt, Tally
from tallymesh_ledger import keys, merkle
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.seat import Seat

UNITS = 5  # two tallies, all that a worker without an Accept runs
SLOW_S = 0.2  # a disk that takes its time: what is sent too early arrives before it is stored
SIGNED = ("receipt", "tally", "leave")


class Killed(BaseException):
    """What nothing in the node handles, like the signal."""


class Disk(MemoryJournal):
    """Slow, and fatal at its `fatal`-th write: before that is stored, or once it is. Then nothing is written."""

    def __init__(self, *, fatal: int = 0, after: bool = False, die: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.die = die  # at that moment: what its tasks still try, a killed process does not
        self.fatal, self.after = fatal, after
        self.writes = 0
        self.dead = False

    async def append(self, scope: str, *lines: tuple[str, bytes]) -> int:
        if self.dead:
            raise Killed
        self.writes += 1
        fatal = self.writes == self.fatal
        await trio.sleep(SLOW_S)
        if not fatal or self.after:
            sequence = await super().append(scope, *lines)
        if fatal:
            self.dead = True
            self.die()
            raise Killed
        return sequence

    def holds(self, signed: bytes) -> bool:
        return any(signed in entry.body for scope in self.scopes("worker/") for entry in self.read(scope))


class Hostile(Payer):
    """Takes everything, shows every secret, accepts nothing; notes what came before it was on the worker's disk."""

    def __init__(self, scene: Scene, node: Node) -> None:
        super().__init__(scene, node)
        self.early: list[str] = []
        for name in SIGNED:
            self.answers[name] = lambda body, n=name: self._note(n, body)  # type: ignore[misc]

    async def lease_and_seat(self) -> None:
        """The same lease whenever it is asked for, as if it were new."""
        if not hasattr(self, "lease"):
            self.lease = self.make_lease()
        answer = exchange.decode(await self.ask(self.lease_request(self.lease)), LeaseAnswer)
        self.signed = keys.open_signed(DOMAINS, answer.lease, Lease, self.node.key.address)
        self.seat = Seat(seat_id(DOMAINS, self.lease), self.lease, self.order.tally_units)
        if self.seat.id not in self.scene.chain.seats:
            await self.put_on_chain()

    def _note(self, name: str, body: bytes) -> bytes:
        disk = self.node.journal
        assert isinstance(disk, Disk)
        signed = self._signed(name, body)
        if not disk.holds(signed):
            self.early.append(name)
        if name != "tally":
            return exchange.encode(Nothing())
        return exchange.encode(TallyAnswer(self.secret(wire.decode(signed, Tally).message.number)))

    @staticmethod
    def _signed(name: str, body: bytes) -> bytes:
        if name == "receipt":
            return exchange.decode(body, ReceiptRequest).receipt
        return (
            exchange.decode(body, TallyRequest).tally if name == "tally" else exchange.decode(body, LeaveRequest).leave
        )

    def said(self) -> dict[int, set[bytes]]:
        """What the worker signed, by position."""
        found: dict[int, set[bytes]] = {}
        for body in self.received("receipt"):
            data = exchange.decode(body, ReceiptRequest).receipt
            receipt = keys.open_signed(DOMAINS, data, Receipt, self.node.key.address).message
            found.setdefault(receipt.position, set()).add(receipt.leaf)
        return found

    def proofs(self) -> list[str]:
        """Of fraud: two receipts for one position, or a tally over other leaves than the receipts say."""
        leaves = self.said()
        found = [f"two receipts at {position}" for position, said in leaves.items() if len(said) > 1]
        for body in self.received("tally"):
            tally = wire.decode(exchange.decode(body, TallyRequest).tally, Tally).message
            covered = [leaves.get(p, {b""}) for p in range(tally.start, tally.start + tally.count)]
            roots = {merkle.root(list(each)) for each in itertools.product(*covered) if all(each)}
            if tally.root not in roots:
                found.append(f"tally {tally.number} contradicts its receipts")
        return found


async def life(node: Node, payer: Hostile, *, task: int) -> None:
    """Until the work is done or the node is dead. `task`: which unit position 0 gets; the others follow."""
    try:
        async with node.run():
            try:
                await payer.lease_and_seat()
            except RemoteError:
                return  # that was the fatal write
            for position in range(UNITS):
                try:
                    await payer.ask(payer.assign_request(position, task=position + task), timeout_s=3.0)
                except RemoteError:
                    continue
            await trio.sleep(30)
    except* Killed:
        pass


def another_result_every_time(node: Node) -> None:
    """The program is not deterministic: whatever runs twice has two results."""
    count = itertools.count()
    node.executor.functions["m:f"] = lambda unit, inputs: (b"result %d" % next(count), {})


async def killed(scene: Scene, fatal: int, *, after: bool) -> Hostile:
    """Two lives of one worker, the first of which ends at its `fatal`-th write."""
    node = Node(scene)
    another_result_every_time(node)
    node.journal = Disk(fatal=fatal, after=after, die=lambda: scene.network.down.add(node.peer_id))
    payer = Hostile(scene, node)
    await life(node, payer, task=0)
    if not fatal:
        return payer
    assert node.journal.dead
    scene.network.down.clear()
    kept = Disk()
    kept._lines, kept._head = node.journal._lines, node.journal._head
    node.journal = kept
    await life(node, payer, task=UNITS)
    return payer


async def test_what_is_signed_is_on_disk_before_it_leaves(scene: Scene) -> None:
    payer = await killed(scene, 0, after=False)
    assert set(payer.said()) == set(range(UNITS))
    assert payer.received("tally")
    assert payer.early == []


# The lease, an Assign and a receipt for each unit, two tallies and their secrets.
WRITES = 1 + 2 * UNITS + 4


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_kill_9_at_every_write_of_the_signing_path_leaves_no_proof_of_fraud(tmp_path: Path, after: bool) -> None:
    for fatal in range(1, WRITES + 1):
        payer = await killed(Scene(tmp_path / str(fatal)), fatal, after=after)
        assert payer.proofs() == [], fatal
        assert payer.early == [], fatal
        if fatal > 1 or after:
            assert len(payer.said()) == UNITS, fatal  # the second life did not just fall silent


async def test_the_judge_of_these_tests_sees_two_leaves(scene: Scene, node: Node) -> None:
    """A worker without a memory, and the same payer: so the tests above can fail."""
    node.journal = Disk()
    another_result_every_time(node)
    payer = Hostile(scene, node)
    await life(node, payer, task=0)
    node.journal = Disk()
    await life(node, payer, task=UNITS)
    assert any(proof.startswith("two receipts") for proof in payer.proofs())
