"""What a worker risks and when it stops: exposure before the seat is on chain, tallies ahead of their Accepts, time."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from fakes.worker_scene import TOKEN, Node, Payer, Scene, refusal
from tallymesh.errors import RemoteError
from tallymesh.messages import Auditors
from tallymesh.parameters import Parameters
from tallymesh_node.interfaces import Failure


def small_exposure(scene: Scene) -> None:
    scene.parameters = Parameters(tally_units=4, exposure_work_ms=2500)


async def test_before_the_seat_is_on_chain_only_a_little_work_is_risked(scene: Scene, node: Node) -> None:
    small_exposure(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.agree()
        await payer.assign(0, 1, 2, 3)
        await trio.sleep(20)
        assert len(node.executor.ran) == 2
        await payer.put_on_chain()
        await payer.wait(lambda: len(payer.seat.leaves) == 4)


async def test_a_seat_on_chain_with_other_terms_does_not_count(scene: Scene, node: Node) -> None:
    small_exposure(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.agree()
        await payer.put_on_chain()
        scene.chain.seats[payer.seat.id].units -= 1
        await trio.sleep(12)  # a look at the chain
        await payer.assign(0, 1, 2, 3)
        await trio.sleep(20)
        assert len(node.executor.ran) == 2


async def test_a_reorganisation_puts_the_worker_back_under_its_exposure_limit(scene: Scene, node: Node) -> None:
    small_exposure(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        taken = scene.chain.seats.pop(payer.seat.id)
        await trio.sleep(12)  # a look at the chain
        await payer.assign(1, 2, 3)
        await trio.sleep(12)
        assert len(node.executor.ran) == 2
        scene.chain.seats[payer.seat.id] = taken
        await payer.wait(lambda: len(payer.seat.leaves) == 4)


async def test_no_cores_are_held_for_a_payer_that_cannot_open_its_job(scene: Scene, node: Node, payer: Payer) -> None:
    """Signing a lease holds them for minutes, and asking is free."""
    async with node.run():
        token = scene.chain.contracts.token
        scene.chain.run(lambda: token.transfer(payer.key.address, b"x" * 20, 10 * TOKEN - 1))
        error = await refusal(payer.ask(payer.lease_request(payer.make_lease())))
        assert error.code == "unfunded"
        scene.chain.mint(payer.key.address, 2 * TOKEN)
        await payer.begin()  # the budget is in the escrow now, and the account has next to nothing again
        assert await scene.chain.view(payer.key.address).tokens() < payer.order.wages
        await payer.agree(nonce=2)


@pytest.mark.slow
async def test_a_payer_that_never_takes_its_seats_does_not_hold_the_cores_for_good(scene: Scene, node: Node) -> None:
    """Two jobs of one core each on two cores, signed again whenever they run out: nobody else would get one."""
    thieves = [Payer(scene, node, number=number) for number in (60, 70)]
    honest = Payer(scene, node)

    async def steal(thief: Payer) -> None:
        nonce = 1
        while True:
            nonce += 1
            with suppress(RemoteError):
                await thief.agree(nonce=nonce)
            await trio.sleep(1)

    async with node.run(), trio.open_nursery() as nursery:
        for thief in thieves:
            nursery.start_soon(steal, thief)
        await trio.sleep(5)
        assert (await refusal(honest.ask(honest.lease_request(honest.make_lease())))).code == "busy"
        with trio.fail_after(600):
            while True:
                with suppress(RemoteError):
                    await honest.begin()
                    break
                await trio.sleep(5)
        again = await refusal(thieves[0].ask(thieves[0].lease_request(thieves[0].make_lease(nonce=1000))))
        assert again.code in ("never_seated", "busy")
        nursery.cancel_scope.cancel()


async def test_a_seat_that_never_gets_on_chain_is_left(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.agree()
        await payer.assign(0)
        await payer.wait(lambda: payer.leaves, timeout_s=200)
        assert payer.leaves[0].code == "unseated"
        assert scene.chain.now() > payer.lease.seat_by
        await trio.sleep(30)
        assert service.counters["leases_open"] == 0
        assert (await refusal(payer.ask(payer.assign_request(1)))).code == "unknown_seat"
        assert node.executor.closed == [payer.lease.job]


async def test_a_seat_on_chain_is_not_left_at_seat_by(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await trio.sleep(200)
        assert payer.leaves == []


async def test_while_the_chain_is_down_nobody_is_left_for_it(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.agree()
        scene.chain.down = True
        await trio.sleep(200)
        assert payer.leaves == []
        scene.chain.down = False
        await payer.wait(lambda: payer.leaves)


async def test_work_stops_at_the_end_of_the_lease_and_what_is_done_is_tallied(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin(until=payer.scene.chain.now() + 50)
        await payer.assign(0, 1, 2)
        await payer.wait(lambda: len(payer.seat.leaves) == 3)
        assert len(payer.seat.tallies) == 1
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert [leave.code for leave in payer.leaves] == ["lease_over"]
        assert (await refusal(payer.ask(payer.assign_request(3)))).code == "out_of_order"


async def test_tally_three_is_not_begun_without_the_accept_of_one(node: Node, payer: Payer) -> None:
    """Units 0, 1-4, 5-8: position 5 belongs to tally 3."""
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        assert (await refusal(payer.ask(payer.assign_request(5)))).code == "unaccepted"
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert (await refusal(payer.ask(payer.assign_request(5)))).code == "unaccepted"
        await payer.accept(1)
        await payer.assign(5, 6, 7, 8)
        assert (await refusal(payer.ask(payer.assign_request(9)))).code == "unaccepted"
        await payer.wait(lambda: len(payer.seat.tallies) == 3)


async def test_short_tallies_asked_for_by_close_do_not_get_more_work_ahead(node: Node, payer: Payer) -> None:
    """Closing after every unit must not make the worker run further ahead of its Accepts."""
    node.executor.seconds[""] = 5.0
    node.cores.count = 1
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)  # within tallies 1 and 2 as they would be when full
        await payer.close(2, final=False)
        await trio.sleep(40)
        assert [t.range.count for t in payer.seat.tallies] == [1, 1]
        assert len(node.executor.ran) == 2  # position 2 is now of tally 3, which waits for the Accept of tally 1
        await payer.accept(1)
        await payer.wait(lambda: len(payer.seat.leaves) == 5)


@pytest.mark.parametrize("auditors", [Auditors.PAYER, Auditors.GROUP])
async def test_where_there_is_no_claim_only_one_tally_is_risked(scene: Scene, node: Node, auditors: Auditors) -> None:
    payer = Payer(scene, node, auditors=int(auditors))
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1)
        await trio.sleep(30)
        assert len(node.executor.ran) == 1
        await payer.accept(1)
        await payer.wait(lambda: len(payer.seat.leaves) == 2)


async def test_by_time_a_tally_closes_with_few_units_late_and_with_enough_of_them_sooner(
    node: Node, payer: Payer
) -> None:
    async with node.run():  # tally_timed_units 2, tally_time_s 600
        await payer.begin()
        await payer.assign(0, 1)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        await trio.sleep(550)
        assert len(payer.seat.tallies) == 1
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        await payer.accept(2)
        await payer.assign(2, 3)
        await payer.wait(lambda: len(payer.seat.leaves) == 4)
        await trio.sleep(90)
        assert len(payer.seat.tallies) == 2
        await payer.wait(lambda: len(payer.seat.tallies) == 3, timeout_s=30)


async def test_units_of_all_seats_share_the_cores(scene: Scene, node: Node) -> None:
    first, second = Payer(scene, node, number=50), Payer(scene, node, number=60)
    async with node.run():
        for payer in (first, second):
            await payer.begin()
            await payer.assign(0, 1, 2)
        await first.wait(lambda: len(first.seat.leaves) == len(second.seat.leaves) == 3)
    assert node.executor.running_max == node.cores.count == 2


@pytest.mark.parametrize("code", ["program", "limits", "inputs", "sandbox"])
async def test_a_failure_is_reported_and_ends_the_seat(node: Node, payer: Payer, code: str) -> None:
    failing = payer.tasks[1].unit_id
    node.executor.fail[failing] = Failure(code, "It failed.", "Traceback: line\udcff 1")
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2)
        await payer.wait(lambda: payer.leaves)
        (failure,) = payer.failures
        assert (failure.position, failure.code, failure.sentence) == (1, code, "It failed.")
        assert failure.traceback == "Traceback: line? 1"
        assert payer.leaves[0].code == "unit_failed"
        assert node.executor.ran.count(failing) == (2 if code == "sandbox" else 1)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        assert await payer.send_accept(payer.accept_message(1)) is not None  # nothing after it can be paid


async def test_earlier_positions_are_finished_before_a_failed_seat_is_left(node: Node, payer: Payer) -> None:
    node.executor.fail[payer.tasks[2].unit_id] = Failure("program", "It failed.")
    node.cores.count = 3
    node.executor.functions["slow"] = lambda unit, inputs: (b"", {})
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        await payer.assign(1, 2)
        await payer.wait(lambda: payer.leaves)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert payer.seat.tallies[1].range.count == 1


async def test_inputs_that_nobody_has_are_a_failure_after_the_grace(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        (payer.blobs.folder / payer.spec.inputs[0].hex()).unlink()
        await payer.assign(0)
        await payer.wait(lambda: payer.failures)
        assert payer.failures[0].code == "inputs"
        assert node.executor.ran == []


async def test_a_unit_that_is_done_waits_for_a_disk_that_is_full(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        node.journal.broken = True
        await trio.sleep(30)
        assert payer.received("receipt") == []
        node.journal.broken = False
        await payer.wait(lambda: payer.seat.tallies)
        assert len(node.executor.ran) == 1
