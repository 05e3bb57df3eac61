"""Jobs whose units compute on GPUs: their units, their audits and their pay stay within the class of such cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
import trio

from fakes.executor import honest
from fakes.payer_scene import CLASS, PRICE, PayerNode, Scene, caught, evaluate, honest_result, loss_check, result_of
from tallymesh import api
from tallymesh.ids import BlobId
from tallymesh.units import JobSpec, Unit
from tallymesh_learning.runtime import profile
from tallymesh_node.interfaces import Failure

CARDS = b"\x0d" * 32  # the class of those who sell some
GPUS = "1*NVIDIA H200:143771:570.86.15:48.1:52.3"
GPU = api.Require(gpu=1, memory_gib=4)
ON_GPUS, ON_CPUS = profile.profile_hash(profile.GPU), profile.profile_hash(profile.CPU)
Function = Callable[[Unit, Mapping[BlobId, bytes]], tuple[bytes, dict[str, float]]]


def on_card(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    """Another result than cores have, and for units of cards alone."""
    assert unit.profile == ON_GPUS
    output, metrics = honest(unit, inputs)
    return b"card" + output, metrics


def sellers(scene: Scene, numbers: range, work: Function = on_card, ask: int = PRICE) -> list[Any]:
    found = []
    for number in numbers:
        peer = scene.join(number, numeric_class=CARDS, gpus=GPUS, ask=ask)
        for executor in (peer.working, peer.auditing):
            executor.functions = dict.fromkeys(("m:f", "tallymesh:client", "tallymesh:segment"), on_card)
        peer.working.functions = dict.fromkeys(peer.working.functions, work)
        found.append(peer)
    return found


def idle(peer: Any) -> bool:
    return not (peer.working.ran or peer.auditing.ran)


def outputs(payer: PayerNode, spec: JobSpec, view: api.JobView) -> list[bytes]:
    return [payer.blobs.get(BlobId(name)) for name in result_of(payer, spec, view)]


def gpu_spec(payer: PayerNode, kind: str, **more: Any) -> JobSpec:
    return msgspec.structs.replace(payer.spec(kind, **more), profile=ON_GPUS)


def watch(payer: PayerNode) -> list[bytes]:
    """The profiles of what the payer's own node computes."""
    assert payer.executor is not None
    seen: list[bytes] = []

    def seeing(function: Function) -> Function:
        def run(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
            seen.append(unit.profile)
            return function(unit, inputs)

        return run

    functions = {"tallymesh:loss_check": loss_check, "tallymesh:evaluate": evaluate}
    wanted = {
        **dict.fromkeys(("m:f", "tallymesh:client", "tallymesh:segment", "tallymesh:aggregate"), honest),
        **functions,
    }
    payer.executor.functions = {name: seeing(function) for name, function in wanted.items()}
    return seen


@pytest.mark.slow
async def test_units_of_cards_and_their_audits_are_for_who_sells_cards_and_the_payer_recomputes_none(
    scene: Scene, payer: PayerNode
) -> None:
    others = scene.crowd(3)
    cards, seen = sellers(scene, range(4, 9)), watch(payer)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = gpu_spec(payer, "map", items=12)
        view = await payer.wait(await payer.submit(spec, require=GPU, verify="integrity"))
        assert all(output.startswith(b"card") for output in outputs(payer, spec, view))
    assert all(idle(peer) for peer in others)
    assert sum(len(peer.working.ran) for peer in cards) == 12
    assert sum(len(peer.auditing.ran) for peer in cards) >= 12
    assert seen == []


@pytest.mark.slow
async def test_a_job_for_cores_goes_to_none_who_sells_cards(scene: Scene, payer: PayerNode) -> None:
    """Though they are the most, and the cheapest."""
    crowd = scene.crowd(4)
    cards = sellers(scene, range(5, 12))
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=8)
        view = await payer.wait(await payer.submit(spec))
        assert result_of(payer, spec, view) == honest_result(payer, spec)
    assert all(idle(peer) for peer in cards)
    assert any(peer.working.ran for peer in crowd)


@pytest.mark.slow
async def test_losses_and_metrics_of_a_job_on_cards_are_measured_on_the_payers_cores(
    scene: Scene, payer: PayerNode
) -> None:
    sellers(scene, range(1, 9))
    seen = watch(payer)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = gpu_spec(payer, "federated", items=4, rounds=2)
        view = await payer.wait(await payer.submit(spec, require=GPU))
        assert view.status == "done"
    assert seen
    assert set(seen) == {ON_CPUS}


@pytest.mark.slow
async def test_who_cheats_on_cards_is_caught_by_others_who_have_some(scene: Scene, payer: PayerNode) -> None:
    def lying(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        output, metrics = on_card(unit, inputs)
        return b"cheated" + output, metrics

    cheat = sellers(scene, range(1, 2), lying, PRICE // 2)[0]
    sellers(scene, range(2, 8))
    seen = watch(payer)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = gpu_spec(payer, "map", items=12)
        job = await payer.submit(spec, require=GPU, verify="integrity")
        view = await payer.wait(job)
        assert all(output.startswith(b"card") for output in outputs(payer, spec, view))
        assert caught(payer, job) == [(cheat.peer_id, "recomputation:first:auditors")]
    assert seen == []


async def test_an_offer_of_cards_under_the_payers_own_class_makes_it_judge_nothing(
    scene: Scene, payer: PayerNode
) -> None:
    """Anybody may say so, and be the only one. What this node's cores compute is still compared with no card's: with
    too few auditors it would otherwise be the judge."""
    for number in (1, 2):
        peer = scene.join(number, numeric_class=CLASS, gpus=GPUS)
        peer.working.functions = peer.auditing.functions = {"m:f": on_card}
    seen = watch(payer)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(gpu_spec(payer, "map", items=2), require=GPU, verify="integrity")
        await trio.sleep(60)
        assert "no_auditors" in {problem.code for problem in payer.service.why(job)}
        assert caught(payer, job) == []
    assert seen == []


@pytest.mark.slow
async def test_who_sells_cards_under_the_payers_own_class_is_not_preferred_for_that(
    scene: Scene, payer: PayerNode
) -> None:
    alone = scene.join(1, numeric_class=CLASS, gpus=GPUS, ask=PRICE // 2)
    sellers(scene, range(2, 9))
    async with scene.running() as nursery:
        await payer.start(nursery)
        await payer.wait(await payer.submit(gpu_spec(payer, "map", items=4), require=GPU))
    assert idle(alone)


@pytest.mark.slow
async def test_a_payer_that_computes_nothing_takes_the_class_of_cores_that_most_have_for_cores(scene: Scene) -> None:
    """However many sell cards."""
    payer = PayerNode(scene, own=False)
    crowd = scene.crowd(5)
    sellers(scene, range(6, 14))
    async with scene.running() as nursery:
        await payer.start(nursery)
        await payer.wait(await payer.submit(payer.spec("map", items=4)))
    assert any(peer.working.ran for peer in crowd)


async def test_without_anybody_who_sells_cards_the_job_says_so(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(3)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(gpu_spec(payer, "map", items=4), require=GPU)
        await trio.sleep(10)
        (problem,) = payer.service.why(job)
        assert problem.code == "no_offers"
        assert "3 no_gpus (Its owner sells no GPU)" in problem.sentence
        assert problem.remedy.startswith("Leave gpu= out")


@pytest.mark.slow
async def test_a_program_that_fails_on_cards_is_not_tried_on_the_payers_cores(scene: Scene, payer: PayerNode) -> None:
    """Where it would run, and honest owners of cards would be blamed for it."""
    for peer in sellers(scene, range(1, 8)):
        peer.working.fail["m:f"] = peer.auditing.fail["m:f"] = Failure("program", "No deterministic kernel.")
    seen = watch(payer)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(gpu_spec(payer, "map", items=4), require=GPU)
        view = await payer.wait(job, "failed")
        assert view.problem is not None
        assert "No deterministic kernel." in view.problem.sentence
        assert caught(payer, job) == []
    assert seen == []


@pytest.mark.parametrize(("require", "code"), [(GPU, "no_gpus"), (api.Require(), "no_gpus")])
async def test_what_units_need_and_what_the_job_asks_for_are_one(
    scene: Scene, payer: PayerNode, require: api.Require, code: str
) -> None:
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=3) if require.gpu else gpu_spec(payer, "map", items=3)
        with pytest.raises(Exception, match="prepared") as caught_error:
            await payer.submit(spec, require=require)
    assert getattr(caught_error.value, "code", "") == code
