"""All contracts of one network on one machine, knowing each other as after deployment."""

from __future__ import annotations

from collections.abc import Mapping

from tallymesh.parameters import Parameters
from tallymesh_ledger.model.escrow import JobEscrow
from tallymesh_ledger.model.machine import Machine
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.token import Token


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
            fee_bp=p.fee_bp,
            lease_max=p.lease_max_s,
            lock_tail=p.lock_tail_s,
            window_min=min(windows),
            window_max=max(windows),
        )
        machine.undo.clear()  # deployment is final
        self.contracts = {"Token": self.token, "Registry": self.registry, "JobEscrow": self.escrow}
