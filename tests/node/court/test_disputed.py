"""Whether a party's answer is the unit of the case: each thing that could be another one has a name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from fakes.chain import DOMAINS
from fakes.court_scene import CourtScene
from tallymesh import units
from tallymesh.errors import RemoteError
from tallymesh.exchange import CourtUnitAnswer
from tallymesh_ledger.court import Origin
from tallymesh_node.claims.calls import Call
from tallymesh_node.quarrels.disputed import Disputed, read


async def answered(scene: CourtScene, *, origin: dict[str, Any] | None = None, **changes: Any) -> Call:
    """The worker's answer with some of it changed, held against the case (or another origin)."""
    await scene.accuse()
    found = await scene.payer.court.origin(scene.case)
    assert found is not None
    parties = await scene.payer.court.parties_of(scene.case)
    whole = scene.dossier()
    answer = CourtUnitAnswer(whole.order, whole.lease, whole.unit, whole.opening)
    found = replace(found, **(origin or {}))
    return read(DOMAINS, scene.case, parties, found, replace(answer, **changes), peer="worker")


async def refused(scene: CourtScene, *, origin: dict[str, Any] | None = None, **changes: Any) -> str:
    with pytest.raises(RemoteError) as caught:
        await answered(scene, origin=origin, **changes)
    assert caught.value.peer == "worker"
    return caught.value.code


async def test_the_unit_of_the_case_is_read(scene: CourtScene) -> None:
    call = await answered(scene)
    assert (call.unit, call.order, call.lease) == (scene.unit, scene.order, scene.lease)


async def test_another_lease_is_refused(scene: CourtScene) -> None:
    other = replace(scene.lease, work_ms=scene.lease.work_ms + 1)
    assert await refused(scene, lease=scene.signer.sign(DOMAINS, other).body) == "wrong_seat"


async def test_another_order_is_refused(scene: CourtScene) -> None:
    other = replace(scene.order, memory_mib=1)
    assert await refused(scene, order=scene.payer.key.sign(DOMAINS, other).body) == "wrong_job"


async def test_another_unit_is_refused(scene: CourtScene) -> None:
    assert await refused(scene, unit=units.encode(replace(scene.unit, seed=1))) == "wrong_unit"


async def test_an_accusation_without_its_opening_is_refused(scene: CourtScene) -> None:
    assert await refused(scene, opening=None) == "no_opening"


@pytest.mark.parametrize("field", ["unit_id", "start", "end", "salt", "aux"])
async def test_an_opening_that_differs_anywhere_is_refused(scene: CourtScene, field: str) -> None:
    await scene.accuse()
    other = replace(scene.opening, **{field: b"q" * 32})
    found = await scene.payer.court.origin(scene.case)
    assert found is not None
    parties = await scene.payer.court.parties_of(scene.case)
    whole = scene.dossier(opening=other)
    answer = CourtUnitAnswer(whole.order, whole.lease, whole.unit, whole.opening)
    with pytest.raises(RemoteError) as caught:
        read(DOMAINS, scene.case, parties, found, answer, peer="worker")
    assert caught.value.code == "wrong_opening"


async def test_the_same_leaf_of_another_accuser_is_another_case(scene: CourtScene) -> None:
    await scene.accuse()
    parties = await scene.payer.court.parties_of(scene.case)
    found = await scene.payer.court.origin(scene.case)
    assert isinstance(found, Origin)
    whole = scene.dossier()
    answer = CourtUnitAnswer(whole.order, whole.lease, whole.unit, whole.opening)
    with pytest.raises(RemoteError) as caught:
        read(DOMAINS, scene.case, replace(parties, accuser=b"q" * 20), found, answer, peer="worker")
    assert caught.value.code == "wrong_opening"


async def test_of_a_claims_sample_the_chain_names_the_unit_and_no_opening_is_needed(scene: CourtScene) -> None:
    claimed = {"claim": b"c" * 32, "unit_id": units.unit_id(scene.unit)}
    call = await answered(scene, origin=claimed, opening=None)
    assert call.unit == scene.unit


async def test_of_a_claims_sample_another_unit_is_refused(scene: CourtScene) -> None:
    assert await refused(scene, origin={"claim": b"c" * 32, "unit_id": b"q" * 32}) == "wrong_unit"


async def test_a_party_without_a_known_address_is_not_asked(scene: CourtScene) -> None:
    await scene.accuse()
    court = scene.payer.court
    found, origin = await court.case_of(scene.case), await court.origin(scene.case)
    assert found is not None
    assert origin is not None
    tools: Any = SimpleNamespace(source_of=lambda account: None)
    disputed = Disputed(tools, scene.case, found, await court.parties_of(scene.case), origin)
    with pytest.raises(RemoteError) as caught:
        await disputed._from(scene.worker.key.address)
    assert caught.value.code == "unknown_peer"


@pytest.mark.parametrize("field", ["order", "lease", "unit"])
async def test_garbage_is_refused(scene: CourtScene, field: str) -> None:
    assert await refused(scene, **{field: b"\x00garbage"}) == "bad_message"
