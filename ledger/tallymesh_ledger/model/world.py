"""All contracts of one network on one machine, knowing each other as after deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tallymesh.parameters import DAY, Parameters
from tallymesh_ledger.model.accusations import Accusations
from tallymesh_ledger.model.claims import Claims
from tallymesh_ledger.model.court import Court
from tallymesh_ledger.model.draws import BlockhashRandomness
from tallymesh_ledger.model.escrow import JobEscrow
from tallymesh_ledger.model.machine import Machine
from tallymesh_ledger.model.panels import CourtTerms
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.rewards import Rewards
from tallymesh_ledger.model.rulings import ClaimTerms
from tallymesh_ledger.model.token import Token

NAMES = ("Token", "Registry", "JobEscrow", "Rewards", "Claims", "Accusations", "Court")


class Quarrelling(msgspec.Struct, frozen=True):
    """What the contracts beside escrow and registry are constructed with; defaults as in docs/PROTOCOL.md 9."""

    court: CourtTerms = CourtTerms(7, 7, 31, 10**18, DAY // 24, DAY // 4, DAY // 12, DAY // 2)
    claims: ClaimTerms = ClaimTerms(DAY // 4, DAY // 4, DAY // 12, DAY)
    period_length: int = 7 * DAY  # of rewards
    emission: int = 0  # the most that all workers together get back in a period


QUARRELLING = Quarrelling()


class World:
    """`addresses` by contract name (NAMES); `holder` receives the whole supply."""

    def __init__(
        self,
        machine: Machine,
        addresses: Mapping[str, bytes],
        parameters: Parameters,
        *,
        holder: bytes,
        supply: int,
        quarrelling: Quarrelling = QUARRELLING,
    ) -> None:
        p, q, at = parameters, quarrelling, addresses
        cases = (at["Claims"], at["Accusations"])
        windows = (p.claim_window_s, p.evidence_window_s)
        randomness = BlockhashRandomness(machine)
        self.machine = machine
        self.token = Token(machine, at["Token"], holder, supply)
        self.registry = Registry(
            machine,
            at["Registry"],
            self.token,
            at["JobEscrow"],
            slot_wei=p.slot_wei,
            unbonding_delay=p.unbonding_s,
            class_delay=p.class_delay_s,
        )
        self.escrow = JobEscrow(
            machine,
            at["JobEscrow"],
            self.token,
            self.registry,
            claims=cases,
            court=at["Court"],
            fee_bp=p.fee_bp,
            lease_max=p.lease_max_s,
            lock_tail=p.lock_tail_s,
            window_min=min(windows),
            window_max=max(windows),
            period_length=q.period_length,
        )
        self.registry.credits = self.escrow
        basis = (self.token, self.registry)
        self.rewards = Rewards(machine, at["Rewards"], *basis, self.escrow, emission=q.emission)
        self.court = Court(machine, at["Court"], *basis, randomness, cases, q.court)
        self.claims = Claims(machine, at["Claims"], *basis, self.escrow, self.court, randomness, q.claims)
        self.accusations = Accusations(machine, at["Accusations"], *basis, self.escrow, self.claims, self.court)
        self.claims.accusations = self.accusations
        machine.settle()  # deployment is final
        parts = (
            self.token,
            self.registry,
            self.escrow,
            self.rewards,
            self.claims,
            self.accusations,
            self.court,
        )
        self.contracts: dict[str, Any] = dict(zip(NAMES, parts, strict=True))
