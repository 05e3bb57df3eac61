"""Bar 14: exchanges until the first wrong step of a training of 1,024 steps is found, and what is run for it.

A worker trains a real unit honestly up to a step, gets that one wrong, and trains on from there. Both parties find
each value that the Court asks them for in the node's real sandbox, the moves are transactions to the real contracts on
the embedded chain's machine, and a member recomputes the one step that is left, from the state that both agreed on. The
worst of several places of the wrong step counts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import trio
from bench import Result
from msgspec.structs import replace

from fakes.court_chain import DISPUTED, CourtChain
from fakes.court_chain import PARAMETERS as TESTS
from programs import training
from tallymesh.ids import BlobId
from tallymesh.plan import Plan
from tallymesh.units import Unit
from tallymesh_learning import tensors
from tallymesh_learning.prepare import prepare_training
from tallymesh_ledger.court import SEED_DELAY, CaseState, Ruling
from tallymesh_node.blobs import BlobStore
from tallymesh_node.cores import Cores
from tallymesh_node.quarrels.values import Values
from tallymesh_node.sandbox import SandboxExecutor

STEPS = 1024
PLACES, QUICK = (1, 389, 512, 1024), (389,)  # of the first wrong step
PARAMETERS = replace(TESTS, court_move_s=600, court_commit_s=600, court_reveal_s=600, court_appeal_s=2)
SANDBOXES = {"worker": b"w" * 32, "payer": b"p" * 32, "member": b"m" * 32}


def run(folder: Path, *, quick: bool) -> Result:
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(STEPS * 4, 6, generator=generator), torch.arange(STEPS * 4) % 2)
    local = {"epochs": 1, "batch": 4, "lr": 0.1}
    job = prepare_training(
        training.mlp,
        training.cross_entropy,
        data,
        algorithm="sequential",
        segments=1,
        local=local,
        work=1.0,
        name="dispute",
    )
    store = BlobStore(folder / "blobs")
    for blob in job.blobs.values():
        store.put(blob)
    for place in PLACES:
        (folder / str(place)).mkdir()
    unit = next(iter(Plan(job.spec).ready())).unit
    return trio.run(_measure, folder, store, unit, QUICK if quick else PLACES)


async def _measure(folder: Path, store: BlobStore, unit: Unit, places: tuple[int, ...]) -> Result:
    rows = []
    async with SandboxExecutor(folder / "spool", store.put, slots=1) as executor:
        await executor.wait_ready()
        for place in places:
            rows.append(await _dispute(folder / str(place), store, executor, unit, place))
    worst = max(rows, key=lambda row: row["exchanges"])
    return Result(
        worst["exchanges"],
        "exchanges",
        11,
        details={
            "steps": STEPS,
            "wrong_steps": ", ".join(map(str, places)),
            "steps_a_member_ran": max(row["member_steps"] for row in rows),
            "steps_a_party_ran": max(row["party_steps"] for row in rows),
            "gas_an_exchange": max(row["gas_an_exchange"] for row in rows),
            "gas_a_vote": max(row["gas_a_vote"] for row in rows),
            "gas_without_votes": max(row["gas"] for row in rows),
            "member_s": max(row["member_s"] for row in rows),
            "parties_s": max(row["parties_s"] for row in rows),
        },
    )


class Cheat:
    """Honest up to the wrong step: from there on it goes on from a state that is not the one it should be."""

    def __init__(self, values: Values, store: BlobStore, wrong: int) -> None:
        self.values, self.store, self.wrong = values, store, wrong
        self._row: dict[int, bytes] = {}

    async def at(self, index: int) -> bytes:
        if index < self.wrong:
            return await self.values.at(index)
        if self.wrong not in self._row:
            right = tensors.decode(self.store.get(BlobId(await self.values.at(self.wrong))))
            name = next(name for name, tensor in right.items() if tensor.is_floating_point())
            right[name] = right[name] + 0.5
            self._row[self.wrong] = self.store.put(tensors.encode(right))
        if index not in self._row:
            self._row[index] = await self.values.between(self._row[self.wrong], self.wrong, index)
        return self._row[index]


async def _dispute(folder: Path, store: BlobStore, executor: Any, unit: Unit, wrong: int) -> dict[str, Any]:
    """One quarrel, from the accusation to the ruling."""
    async with CourtChain.open(folder, PARAMETERS) as chain:
        await chain.seat(unit)

        def values(who: str) -> Values:
            return Values(
                unit,
                order=chain.order,
                work_ms=chain.lease.work_ms,
                sandbox=SANDBOXES[who],
                blobs=store,
                executor=executor,
                cores=Cores(1),
                parameters=chain.network.parameters,
            )

        honest, member = values("payer"), values("member")
        cheat = Cheat(values("worker"), store, wrong)
        began, opened = time.perf_counter(), chain.gas()
        ends = await cheat.at(STEPS), await honest.at(STEPS)
        assert ends[0] != ends[1]
        chain.tell(replace(chain.openings[DISPUTED], end=ends[0]))
        case = await chain.accuse(ends[1], steps=STEPS)
        gas, exchanges = chain.gas(), 0  # all that was spent so far
        while (found := await chain.found(case)).state is CaseState.POSTING:
            await chain.worker.post(case, await cheat.at(found.middle))
            await chain.payer.answer(case, await honest.at(found.middle))
            exchanges += 1
        parties_s, moves = time.perf_counter() - began, chain.gas() - gas
        assert (found.lo, found.hi) == (wrong - 1, wrong), "the first wrong step"
        await chain.mine(SEED_DELAY + 1)
        await chain.payer.advance(case)
        began = time.perf_counter()
        result = await member.between(found.agreed, found.lo, found.hi)
        member_s = time.perf_counter() - began
        before = chain.gas()
        votes = await chain.vote(case, result)
        votes_gas = chain.gas() - before
        assert await chain.rule(case) is Ruling.FOR_ACCUSER
        return {
            "exchanges": exchanges,
            "member_steps": sum(member.runs),
            "party_steps": max(sum(honest.runs), sum(cheat.values.runs)),
            "gas_an_exchange": moves / exchanges,
            "gas_a_vote": votes_gas / votes,
            "gas": chain.gas() - votes_gas - opened,
            "member_s": member_s,
            "parties_s": parties_s,
        }
