"""Puts the contracts on any chain: the token, and Registry and JobEscrow that know each other from the start.

Each takes the other's address at construction; addresses follow from the deployer's nonce, so both are known before
either exists. This module does not know which chain it is.
"""

from __future__ import annotations

from typing import Any

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.errors import ChainError
from tallymesh.network import Contracts
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.envelope import contract_address
from tallymesh_ledger.chain.staking import Registry, Token
from tallymesh_ledger.chain.transactions import Mined, Sender
from tallymesh_ledger.keys import checksum

SUPPLY_WEI = 1_000_000_000 * WEI_PER_TOKEN  # the token's cap: nobody can mint afterwards


async def deploy(sender: Sender, parameters: Parameters, *, supply_wei: int = SUPPLY_WEI) -> Contracts:
    """Three transactions of the sender, who receives the whole supply. Nothing else may be sent from it meanwhile.

    ChainError `deploy_raced` where something was: the contracts that were made then do not know each other.
    """
    rpc = sender.rpc
    nonce = int(await rpc.call("eth_getTransactionCount", "0x" + sender.address.hex(), "pending"), 16)
    token, registry, escrow = (contract_address(sender.address, nonce + i) for i in range(3))
    known: dict[str, Any] = {
        "holder": sender.address,
        "supply": supply_wei,
        "token": token,
        "registry": registry,
        "escrow": escrow,
        "slotWei": parameters.slot_wei,
        "unbondingDelay": parameters.unbonding_s,
        "classDelay": parameters.class_delay_s,
        "feeBp": parameters.fee_bp,
        "leaseMax": parameters.lease_max_s,
        "lockTail": parameters.lock_tail_s,
        # an order's windows are its own, between those that the network's parameters name
        "windowMin": min(parameters.claim_window_s, parameters.evidence_window_s),
        "windowMax": max(parameters.claim_window_s, parameters.evidence_window_s),
    }
    made: list[Mined] = []
    for name, expected in zip(abi.CONTRACTS, (token, registry, escrow), strict=True):
        interface = abi.load(name)
        arguments = [known[argument.rstrip("_")] for argument in interface.constructor_arguments]
        mined = await sender.send(b"", interface.creation(*arguments))
        if mined.contract != expected:
            raise ChainError(
                "deploy_raced",
                "Something else was sent from the deploying account meanwhile.",
                reverted=False,
                remedy="Deploy again, with an account that nothing else uses.",
            )
        made.append(mined)
    found = await Registry(rpc, registry, Token(rpc, token)).read("escrow")
    assert found == escrow, "the registry names another escrow than the one deployed"
    return Contracts(
        token=checksum(token),
        registry=checksum(registry),
        escrow=checksum(escrow),
        deployed_block=made[0].block_number,
    )
