"""Payers that cheat, vanish or say no: what it costs the worker, and how it gets its money without them."""

from __future__ import annotations

import pytest
import trio

from fakes.chain import DOMAINS
from fakes.worker_scene import PRICE, TOKEN, Node, Payer, Scene, refusal, refuse
from tallymesh import exchange
from tallymesh.exchange import TallyAnswer
from tallymesh_ledger import audit, waits
from tallymesh_ledger.waits import Step
from tallymesh_node.worker import SettlePolicy
from tallymesh_node.worker.policy import Standing, settle_reason, worth_withdrawing


def paid(scene: Scene, payer: Payer) -> int:
    return scene.chain.seats[payer.seat.id].paid_units


def wages(units: int) -> int:
    return units * PRICE * 98 // 100


# Cheats.


async def test_a_wrong_secret_ends_the_work_for_this_payer_and_is_kept_as_evidence(node: Node, payer: Payer) -> None:
    payer.answers["tally"] = lambda body: exchange.encode(TallyAnswer(b"x" * 32))
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2)
        await payer.wait(lambda: payer.leaves)
        assert payer.leaves[0].code == "refused"
        ran = len(node.executor.ran)
        assert ran <= 3
        assert "not the one it had signed" in service.seats()[0].problem
        (work,) = service.works()
        assert work.record.evidence == [("bad_secret", exchange.encode(TallyAnswer(b"x" * 32)))]
        assert (await refusal(payer.ask(payer.assign_request(3)))).code in ("closed", "out_of_order")
        await trio.sleep(100)
        assert len(node.executor.ran) == ran
        assert len(payer.received("tally")) == 1  # it is not asked again


async def test_a_secret_that_is_not_shown_in_its_minute_ends_the_work(scene: Scene, node: Node, payer: Payer) -> None:
    payer.answers["tally"] = refuse("busy")
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1)
        await payer.wait(lambda: payer.received("tally"))
        began = trio.current_time()
        await payer.wait(lambda: payer.leaves, timeout_s=100)
        waited = trio.current_time() - began
        assert payer.leaves[0].code == "no_secret"
        assert scene.parameters.secret_s <= waited <= scene.parameters.secret_s + 5
        assert len(set(payer.received("tally"))) == 1  # always the same bytes


async def test_an_accept_that_never_comes_ends_the_work_but_not_before_its_time(
    scene: Scene, node: Node, payer: Payer
) -> None:
    calls = audit.SILENT_MAX + scene.parameters.audit_answers_max
    patience = waits.seconds(Step.ACCEPT, scene.parameters, work_ms=1000, audits=calls)
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        await trio.sleep(patience - 20)
        assert payer.leaves == []
        await payer.wait(lambda: payer.leaves)
        assert payer.leaves[0].code == "no_accept"
        assert len(node.executor.ran) == 5  # two tallies: what this payer could cost


async def test_a_payer_that_refuses_receipts_gets_no_more_work(node: Node, payer: Payer) -> None:
    payer.answers["receipt"] = refuse("bad_leaf")
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2)
        await payer.wait(lambda: payer.leaves)
        assert "bad_leaf" in service.seats()[0].problem
        await trio.sleep(60)
        assert payer.received("tally") == []


async def test_a_forfeit_stops_everything_and_an_older_accept_is_still_paid(
    scene: Scene, node: Node, payer: Payer
) -> None:
    node.executor.seconds[""] = 5.0
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        await payer.forfeit()
        await payer.forfeit()
        await trio.sleep(1)
        assert node.executor.running == 0
        assert "Two recomputations" in service.seats()[0].problem
        assert await payer.send_accept(payer.accept_message(1)) is None  # a convict signs no Release
        await trio.sleep(120)
        assert paid(scene, payer) == 1


# Payers that are gone.


async def test_a_worker_whose_payer_vanished_settles_its_accept_itself(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        await payer.accept(1)
        scene.network.down.add(payer.peer_id)
        await trio.sleep(60)
        assert paid(scene, payer) == 0  # it may come back
        await trio.sleep(120)
        assert paid(scene, payer) == 1
        scene.chain.check()
        assert scene.chain.credits[node.key.address] == wages(1)


async def test_before_the_lease_ends_the_worker_settles_even_if_the_payer_lives(
    scene: Scene, node: Node, payer: Payer
) -> None:
    async with node.run():
        await payer.begin(until=scene.chain.now() + 400)
        await payer.assign(0, 1)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        await trio.sleep(280)
        assert paid(scene, payer) == 0
        await trio.sleep(40)
        assert paid(scene, payer) == 1


async def test_large_credits_are_settled_at_once(scene: Scene, node: Node, payer: Payer) -> None:
    node.policy = SettlePolicy(credit_wei=PRICE)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        await trio.sleep(12)
        assert paid(scene, payer) == 1


async def test_what_the_payer_settled_is_not_settled_again(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin(until=scene.chain.now() + 400)
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        chain = scene.chain.view(payer.key.address)
        await chain.settle([(payer.lease, payer.signer.sign(DOMAINS, payer.accept_message(1)))])
        await trio.sleep(600)
    assert [what for what, sender in scene.chain.transactions if sender == node.key.address and what == "settle"] == []


async def test_a_settlement_is_tried_until_the_chain_takes_it(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        scene.network.down.add(payer.peer_id)
        scene.chain.down = True
        await trio.sleep(300)
        scene.chain.down = False
        await trio.sleep(30)
        assert paid(scene, payer) == 1


async def test_a_restarted_worker_still_settles(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
    scene.network.down.add(payer.peer_id)
    async with node.run():
        await trio.sleep(200)
    assert paid(scene, payer) == 1


async def test_seats_that_nobody_closes_are_expired_and_their_stake_is_free_again(
    scene: Scene, node: Node, payer: Payer
) -> None:
    async with node.run() as service:
        await payer.begin(until=scene.chain.now() + 100)
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        scene.network.down.add(payer.peer_id)
        await trio.sleep(100 + payer.order.claim_window + 100)
        assert scene.chain.seats[payer.seat.id].closed_at is not None
        assert paid(scene, payer) == 1
        await trio.sleep(15)
        assert service.counters["leases_open"] == 0
        scene.chain.check()


async def test_credits_are_withdrawn_when_it_is_worth_it(scene: Scene, node: Node, payer: Payer) -> None:
    node.policy = SettlePolicy(withdraw_wei=10 * PRICE, withdraw_idle_wei=PRICE // 2)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        chain = scene.chain.view(payer.key.address)
        await chain.settle([(payer.lease, payer.signer.sign(DOMAINS, payer.accept_message(1)))])
        await trio.sleep(30)
        assert scene.chain.balances[node.key.address] == 0  # a little, and work goes on
        await payer.close(1, final=True)
        await trio.sleep(30)
        assert scene.chain.balances[node.key.address] == wages(1)


# The policy alone.


def test_each_reason_to_settle_has_its_threshold() -> None:
    policy = SettlePolicy()
    calm = Standing(unpaid_units=5, price=10, now=0, since=0, until=100_000, silent_s=0, over_s=None)

    def reason(**changes: object) -> str:
        return settle_reason(policy, Standing(**{**calm_fields, **changes}))  # type: ignore[arg-type]

    calm_fields = {name: getattr(calm, name) for name in calm.__struct_fields__}
    assert reason() == ""
    assert reason(now=99_099) == ""
    assert reason(now=99_100) == "deadline"
    assert reason(now=99_100, unpaid_units=0) == ""
    assert reason(since=99_000, now=99_700) == ""  # a short lease: a quarter of it
    assert reason(since=99_000, now=99_750) == "deadline"
    assert reason(price=20 * TOKEN) == "large"
    assert reason(price=20 * TOKEN - 1) == ""
    assert reason(silent_s=119.9) == ""
    assert reason(silent_s=120.0) == "silence"
    assert reason(over_s=59.9) == ""
    assert reason(over_s=60.0) == "over"


@pytest.mark.parametrize(
    ("wei", "idle", "worth"), [(TOKEN, False, True), (TOKEN - 1, False, False), (10**15, True, True)]
)
def test_withdrawals_have_a_threshold(wei: int, idle: bool, worth: bool) -> None:
    assert worth_withdrawing(SettlePolicy(), wei, idle=idle) is worth
