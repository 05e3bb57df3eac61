"""Puts the contracts on any chain. They know each other from the start.

Each takes others' addresses at construction; addresses follow from the deployer's nonce, so all are known before any
exists. This module does not know which chain it is.
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

# The name that constructors have for each contract, in the order in which they are made.
_ROLES = {
    "Token": "token",
    "Registry": "registry",
    "JobEscrow": "escrow",
    "Rewards": "rewards",
    "Claims": "claims",
    "Accusations": "accusations",
    "Court": "court",
    "BlockhashRandomness": "randomness",
}


async def deploy(sender: Sender, parameters: Parameters, *, supply_wei: int = SUPPLY_WEI) -> Contracts:
    """One transaction of the sender for each contract, and one that funds Rewards; the sender receives the rest of the
    supply. Nothing else may be sent from it meanwhile.

    ChainError `deploy_raced` where something was: the contracts that were made then do not know each other.
    """
    rpc = sender.rpc
    nonce = int(await rpc.call("eth_getTransactionCount", "0x" + sender.address.hex(), "pending"), 16)
    where = {role: contract_address(sender.address, nonce + i) for i, role in enumerate(_ROLES.values())}
    known: dict[str, Any] = {
        **where,
        "holder": sender.address,
        "supply": supply_wei,
        "slotWei": parameters.slot_wei,
        "unbondingDelay": parameters.unbonding_s,
        "classDelay": parameters.class_delay_s,
        "feeBp": parameters.fee_bp,
        "leaseMax": parameters.lease_max_s,
        "lockTail": parameters.lock_tail_s,
        # an order's windows are its own, between those that the network's parameters name
        "windowMin": min(parameters.claim_window_s, parameters.evidence_window_s),
        "windowMax": max(parameters.claim_window_s, parameters.evidence_window_s),
        "periodLength": parameters.period_s,
        "emission": parameters.emission_wei,
        "quorum": parameters.court_quorum,
        "panel": parameters.court_panel,
        "appealPanel": parameters.court_appeal_panel,
        "memberFee": parameters.court_member_fee_wei,
    }
    p = parameters
    windows = {
        "Claims": (p.claim_commit_s, p.claim_open_s, p.claim_reveal_s, p.claim_challenge_s),
        "Court": (p.court_move_s, p.court_commit_s, p.court_reveal_s, p.court_appeal_s),
    }
    made: list[Mined] = []
    for name in (*abi.DEPLOYED, *abi.QUARRELS):
        interface = abi.load(name)
        values = {**known, "windows": windows.get(name)}
        arguments = [values[argument.rstrip("_")] for argument in interface.constructor_arguments]
        mined = await sender.send(b"", interface.creation(*arguments))
        if mined.contract != where[_ROLES[name]]:
            raise ChainError(
                "deploy_raced",
                "Something else was sent from the deploying account meanwhile.",
                reverted=False,
                remedy="Deploy again, with an account that nothing else uses.",
            )
        made.append(mined)
    token = Token(rpc, where["token"])
    await token.transfer(sender, where["rewards"], min(parameters.rewards_wei, supply_wei // 2))
    found = await Registry(rpc, where["registry"], token).read("escrow")
    assert found == where["escrow"], "the registry names another escrow than the one deployed"
    return Contracts(
        token=checksum(where["token"]),
        registry=checksum(where["registry"]),
        escrow=checksum(where["escrow"]),
        rewards=checksum(where["rewards"]),
        claims=checksum(where["claims"]),
        accusations=checksum(where["accusations"]),
        court=checksum(where["court"]),
        deployed_block=made[0].block_number,
    )
