"""Who gets a job's blobs from a worker, and who does not."""

from __future__ import annotations

import msgspec
import pytest

from fakes.chain import DOMAINS
from fakes.worker_scene import Node, Payer, Scene, key_of
from tallymesh.ids import ZERO32, BlobId
from tallymesh.messages import AuditOrder, Lease
from tallymesh.wire import Signed

FRIEND, AUDITOR = key_of(7), key_of(8)


def audit_order(payer: Payer, **changes: object) -> Signed:
    order = AuditOrder(
        seat=b"another seat of the job........."[:32], tally=1, position=0, unit_id=ZERO32, reason=0, draw=0, attempt=0,
        auditor=AUDITOR.address, fee=1, commit_by=0,
    )  # fmt: skip
    return payer.signer.sign(DOMAINS, msgspec.structs.replace(order, **changes))


def friends_lease(payer: Payer, **changes: object) -> Lease:
    return payer.make_lease(worker=FRIEND.address, **changes)


@pytest.fixture
def accounts(scene: Scene) -> dict[str, bytes]:
    scene.accounts.update({"friend": FRIEND.address, "auditor": AUDITOR.address, "stranger": key_of(9).address})
    return scene.accounts


async def test_strangers_get_nothing_whatever_they_show(node: Node, payer: Payer, accounts: dict[str, bytes]) -> None:
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        lease, order = friends_lease(payer), audit_order(payer)
        tickets = {
            "nothing": b"",
            "garbage": b"\x00" * 600,
            "the seat's id": payer.seat.id,
            "a Lease of another": payer.signer.sign(DOMAINS, lease).body,
            "an AuditOrder for another": order.body,
            "a Lease signed by itself": key_of(9).sign(DOMAINS, friends_lease(payer)).body,
        }
        for what, ticket in tickets.items():
            for peer in ("stranger", "unbound"):
                for blob in (payer.program, payer.output(0), payer.template):
                    assert not service.may_fetch(peer, BlobId(blob), ticket), (what, peer)


async def test_payer_fellow_workers_and_auditors_get_the_jobs_blobs(
    node: Node, payer: Payer, accounts: dict[str, bytes]
) -> None:
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        lease, order = payer.signer.sign(DOMAINS, friends_lease(payer)).body, audit_order(payer).body
        for blob in (payer.program, payer.spec.inputs[0], payer.output(0), payer.template):
            assert service.may_fetch(payer.peer_id, BlobId(blob), b"")
            assert service.may_fetch("friend", BlobId(blob), lease)
            assert service.may_fetch("auditor", BlobId(blob), order)


async def test_a_ticket_opens_its_own_job_alone(scene: Scene, node: Node, accounts: dict[str, bytes]) -> None:
    one, two = Payer(scene, node, number=50), Payer(scene, node, number=60)
    secret = node.blobs.put(b"a blob of no job")
    async with node.run() as service:
        for payer in (one, two):
            await payer.begin()
            await payer.assign(0)
            await payer.wait(lambda: payer.seat.tallies)  # noqa: B023
        # Both jobs have the same program and items here, so the same outputs; the templates' orders differ.
        only_two = two.blobs.put(b"only of job two")
        node.blobs.put(b"only of job two")
        service._works[two.seat.id].record.blobs.add(only_two)
        lease = one.signer.sign(DOMAINS, friends_lease(one)).body
        assert service.may_fetch("friend", one.output(0), lease)
        assert not service.may_fetch("friend", only_two, lease)
        assert not service.may_fetch("auditor", only_two, audit_order(one).body)
        assert not service.may_fetch(one.peer_id, only_two, b"")
        assert not service.may_fetch("friend", secret, lease)
        foreign = one.signer.sign(DOMAINS, friends_lease(one, job=two.lease.job)).body
        assert not service.may_fetch("friend", one.output(0), foreign)


async def test_a_job_that_is_over_serves_nothing_more(
    scene: Scene, node: Node, payer: Payer, accounts: dict[str, bytes]
) -> None:
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        output = payer.output(0)
        assert service.may_fetch(payer.peer_id, output, b"")
        scene.chain.seats[payer.seat.id].closed_at = scene.chain.now()
        await payer.wait(lambda: not service.counters["leases_open"])
        assert not service.may_fetch(payer.peer_id, output, b"")
