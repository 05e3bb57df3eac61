"""One case for each check of a payer that the other tests pass by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from fakes.chain import DOMAINS
from fakes.payer_scene import PRICE, PayerNode, Puppet, Scene
from tallymesh import api, exchange, wire
from tallymesh.errors import CallerError, LocalError, RemoteError
from tallymesh.exchange import LeaseAnswer, LeaseRequest, ProgressRequest, ReleaseAnswer
from tallymesh.ids import blob_id
from tallymesh.messages import Lease, Receipt, Release
from tallymesh.parameters import Parameters
from tallymesh.units import JobSpec, Stage
from tallymesh_node.interfaces import Limits
from tallymesh_node.payer import ordering, receiving, service
from tallymesh_node.payer.driver import JobDriver
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Released
from tallymesh_scheduler.leases import LeaseState

# ---- terms

A = b"\x0a" * 32
SPEC = JobSpec("map", A, A, 0, (Stage("map", "m:f", b"{}", 1000),), (A, A))
FITTING: dict[str, Any] = {"budget_wei": "1000000", "require": api.Require(), "verify": "sampled", "deadline_s": 60}


def order(**terms: Any) -> Any:
    return ordering.make_order(
        SPEC, A, api.Terms(**{**FITTING, **terms}), payer=b"p" * 20, signer=b"s" * 20, salt=A, now=0,
        parameters=Parameters(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"verify": "trust"}, "bad_terms"),
        ({"budget_wei": "0"}, "bad_amount"),
        ({"budget_wei": "-5"}, "bad_amount"),
        ({"budget_wei": str(1 << 96)}, "bad_amount"),
        ({"budget_wei": "1"}, "budget_too_small"),
        ({"verify": "replicate", "workers_max": 1}, "bad_terms"),
        ({"max_price_wei": "-1"}, "bad_amount"),
        ({"max_price_wei": str(1 << 96)}, "bad_amount"),
        ({"max_price_wei": "0"}, "bad_amount"),
        ({"require": api.Require(cores=0)}, "bad_terms"),
        ({"require": api.Require(memory_gib=-1)}, "bad_terms"),
        ({"require": api.Require(disk_gib=-1)}, "bad_terms"),
        ({"require": api.Require(gpu=-1)}, "bad_terms"),
        ({"deadline_s": 0}, "bad_terms"),
        ({"deadline_s": ordering.DEADLINE_MAX_S + 1}, "bad_terms"),
    ],
    ids=str,
)
def test_terms_that_no_order_can_say_are_refused(terms: dict[str, Any], code: str) -> None:
    assert order().wages > 0
    with pytest.raises(CallerError) as caught:
        order(**terms)
    assert caught.value.code == code


# ---- jobs and the disk


async def test_no_more_jobs_are_taken_on_than_are_driven(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene.running() as nursery:
        await payer.start(nursery)
        monkeypatch.setattr(service, "JOBS_MAX", 0)
        with pytest.raises(LocalError) as caught:
            await payer.submit(payer.spec("map", items=3))
        assert caught.value.code == "busy"


async def test_a_payer_that_does_not_run_takes_no_job_on(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene.running() as nursery:
        await payer.start(nursery)
        monkeypatch.setattr(payer.service, "_nursery", None)
        with pytest.raises(LocalError) as caught:
            await payer.submit(payer.spec("map", items=3))
        assert caught.value.code == "not_running"
        assert payer.service.jobs() == []


async def test_nobody_goes_on_with_a_book_that_the_disk_refused(
    scene: Scene, payer: PayerNode, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither whoever waits for its lines, nor the job itself."""
    reconciled: list[str] = []
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        driver = payer.service._driver(held.lease.job.hex())
        part = SimpleNamespace(reconcile=lambda: reconciled.append(driver.disk_problem), problems=list)
        monkeypatch.setattr(driver, "parts", (part,))
        driver.disk_problem = "full"
        with pytest.raises(LocalError, match="full"):
            await driver.durable()
        driver.wake()
        await trio.sleep(1)
    assert "full" not in reconciled


async def test_a_job_whose_disk_is_full_listens_to_nobody(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    """What it answered might rest on lines that a restart will not find."""
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        driver, doors, digest = at_rest(payer, held), payer.service._doors, b"d" * 32
        calls = {**driver.book.calls, digest: None}
        driver.book.calls = calls  # type: ignore[assignment]
        assert doors._seat(puppet.seat, "peer") == (driver, held)
        assert doors._audited(digest, "peer") is driver
        driver.disk_problem = "full"
        with pytest.raises(LocalError, match="full"):
            doors._seat(puppet.seat, "peer")
        with pytest.raises(LocalError, match="full"):
            doors._audited(digest, "peer")


# ---- a worker's answers


def at_rest(payer: PayerNode, held: Held) -> JobDriver:
    """The job does nothing of its own accord from here on: what a test does to its seat stays as it is."""
    driver = payer.service._driver(held.lease.job.hex())
    driver.parts = ()
    return driver


async def begin(payer: PayerNode, puppet: Puppet, nursery: trio.Nursery) -> Held:
    await payer.start(nursery)
    job = await payer.submit(payer.spec("map", items=10), workers_max=1, max_price_wei=str(PRICE))
    await puppet.wait(2)
    return payer.service._driver(job).book.held(puppet.seat)


@pytest.fixture
def puppet(scene: Scene) -> Puppet:
    scene.crowd(3, works=False)
    return Puppet(scene, 9)


async def test_a_worker_that_signs_another_lease_than_it_was_asked_for_is_not_seated(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async def other(peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        asked = wire.decode(exchange.decode(body, LeaseRequest).lease, Lease).message
        dearer = msgspec.structs.replace(asked, price=asked.price + 1)
        return exchange.encode(LeaseAnswer(puppet.key.sign(DOMAINS, dearer).body))

    puppet._lease = other  # type: ignore[method-assign]
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=10), workers_max=1, max_price_wei=str(PRICE))
        await trio.sleep(20)
        helds = [held for held in payer.service._driver(job).book.all() if held.account == puppet.key.address]
        assert {held.state for held in helds} <= {LeaseState.REFUSED, LeaseState.ASKED}, "asked again after a while"
        assert {held.problem[0] for held in helds if held.problem} == {"bad_lease"}, "known before the chain was asked"
        assert not any(seat.worker == puppet.key.address for seat in scene.chain.seats.values())


async def test_a_release_of_another_seat_is_not_taken(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        auditing = payer.service._driver(held.lease.job.hex()).auditing
        other = puppet.key.sign(DOMAINS, Release(seat=bytes(32), units=0)).body
        with pytest.raises(RemoteError, match="another seat"):
            await auditing.take_release(held, exchange.encode(ReleaseAnswer(other)))
        assert held.release is None


async def test_a_release_for_more_than_was_accepted_is_not_taken(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        release = puppet.key.sign(DOMAINS, Release(seat=puppet.seat, units=1)).body
        with pytest.raises(RemoteError) as caught:
            await payer.service._driver(held.lease.job.hex()).commit(Released(release))
        assert caught.value.code == "unpaid"
        assert held.release is None


async def test_an_output_over_the_limit_ends_the_seat(
    scene: Scene, payer: PayerNode, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = msgspec.structs.replace(Limits(), output_mib=0)
    monkeypatch.setattr(receiving, "Limits", lambda: limits)
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        fetched = msgspec.structs.replace(puppet.receipt(0, b"far too large"), inline={})
        puppet.peer.blobs.put(b"far too large")
        with pytest.raises(RemoteError) as caught:
            await puppet.say(fetched)
        assert caught.value.code == "too_late"
        assert held.seat.leaves == {}
        assert held.problem is not None
        assert held.problem[0] == "form"


@pytest.mark.parametrize("lie", ["wrong_unit", "bad_leaf", "too_late"])
async def test_a_receipt_that_cannot_count_is_refused_before_its_output_is_fetched(
    scene: Scene, payer: PayerNode, puppet: Puppet, lie: str
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        changes = {"unit_id": puppet.opening(1).unit_id} if lie == "wrong_unit" else {}
        request = msgspec.structs.replace(puppet.receipt(0, b"far away", **changes), inline={})
        if lie == "bad_leaf":
            leaf = puppet.key.sign(DOMAINS, Receipt(seat=puppet.seat, position=0, leaf=bytes(32))).body
            request = msgspec.structs.replace(request, receipt=leaf)
        if lie == "too_late":
            at_rest(payer, held)
            held.seat.cancel()
            held.state = LeaseState.LOST
        puppet.peer.blobs.put(b"far away")
        with pytest.raises(RemoteError) as caught:
            await puppet.say(request)
        assert caught.value.code == lie
        await trio.sleep(5)
        assert not payer.blobs.has(blob_id(b"far away"))


async def test_a_tally_whose_secret_is_not_shown_yet_gets_no_empty_one(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0))
        tally = puppet.tally(held.seat, 1)
        await puppet.say(tally)
        at_rest(payer, held)
        held.seat.tallies[0].secret = b""
        with pytest.raises(RemoteError) as caught:
            await puppet.say(tally)
        assert caught.value.code == "busy"


async def test_an_audit_of_which_nobody_was_told_is_not_found(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        with pytest.raises(RemoteError) as caught:
            payer.service._driver(held.lease.job.hex()).calling._find(bytes(32), "a peer")
        assert caught.value.code == "unknown_audit"


async def test_an_inlined_output_over_64_kib_is_refused(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        output = bytes(exchange.INLINE_BYTES + 1)
        with pytest.raises(RemoteError) as caught:
            await puppet.say(puppet.receipt(0, output))
        assert caught.value.code == "bad_inline"
        assert not payer.blobs.has(blob_id(output))
        assert held.seat.leaves == {}


async def test_a_seat_that_is_over_takes_no_more_signs_of_life(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        puppet.alive = False
        await puppet.say(ProgressRequest(puppet.seat, 100))
        at_rest(payer, held)
        held.seat.forfeit()
        with pytest.raises(RemoteError) as caught:
            await puppet.say(ProgressRequest(puppet.seat, 101))
        assert caught.value.code == "closed"


async def test_a_unit_that_was_received_did_not_fail(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0))
        with pytest.raises(RemoteError) as caught:
            await puppet.say(exchange.FailureRequest(puppet.seat, 0, "program", "boom"))
        assert caught.value.code == "not_assigned"
        assert held.failures == {}
