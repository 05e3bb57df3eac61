"""All contracts of one network on one machine, knowing each other as after deployment."""

from __future__ import annotations

from collections.abc import Mapping

from tallymesh.parameters import DAY, Parameters
from tallymesh_ledger.model.escrow import JobEscrow
from tallymesh_ledger.model.machine import ZERO_ADDRESS, Machine
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.rewards import Rewards
from tallymesh_ledger.model.token import Token

PERIOD_S = 7 * DAY  # of rewards


class World:
    """`addresses` by contract name; `holder` receives the whole supply."""

    def __init__(
        self,
        machine: Machine,
        addresses: Mapping[str, bytes],
        parameters: Parameters,
        *,
        holder: bytes,
        supply: int,
        period_length: int = PERIOD_S,
        emission: int = 0,
    ) -> None:
        p, at = parameters, addresses
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
        windows = (p.claim_window_s, p.evidence_window_s)
        self.escrow = JobEscrow(
            machine,
            at["JobEscrow"],
            self.token,
            self.registry,
            claims=[at[name] for name in ("Claims", "Accusations") if name in at],
            court=at.get("Court", ZERO_ADDRESS),
            fee_bp=p.fee_bp,
            lease_max=p.lease_max_s,
            lock_tail=p.lock_tail_s,
            window_min=min(windows),
            window_max=max(windows),
            period_length=period_length,
        )
        self.registry.credits = self.escrow
        self.contracts = {"Token": self.token, "Registry": self.registry, "JobEscrow": self.escrow}
        if "Rewards" in at:
            self.rewards = Rewards(machine, at["Rewards"], self.token, self.registry, self.escrow, emission=emission)
            self.contracts["Rewards"] = self.rewards
        machine.undo.clear()  # deployment is final
