"""Puts the contracts on any chain. They know each other from the start.

Each takes others' addresses at construction; addresses follow from the deployer's nonce, so all are known before any
exists. Without block hashes to draw from there are no Claims, Accusations and Court: there only Accepts pay. This
module does not know which chain it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.errors import ChainError
from tallymesh.network import Contracts
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.envelope import contract_address
from tallymesh_ledger.chain.randomness import CONTRACTS, Randomness
from tallymesh_ledger.chain.staking import Registry, Token
from tallymesh_ledger.chain.transactions import Sender
from tallymesh_ledger.keys import checksum

PENDING_S = 120.0  # for what a deployment that broke off has sent and is not mined yet
PENDING_POLL_S = 1.0
FUNDING_GAS = 80_000  # more than the transfer to Rewards takes
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
    "HistoryRandomness": "randomness",
}
_COURTS = ("claims", "accusations", "court")


def made_of(randomness: Randomness) -> tuple[str, ...]:
    """The contracts of such a network, in the order in which they are made."""
    if randomness == "none":
        return abi.DEPLOYED
    return (*abi.DEPLOYED, *abi.QUARRELS[:-1], CONTRACTS[randomness])


class Begun(msgspec.Struct, frozen=True):
    """Where a deployment began: all addresses follow from the sender's nonce then. `block` is the first that can hold
    any of its contracts."""

    nonce: int
    block: int


async def begin(sender: Sender) -> Begun:
    """To be kept before anything is sent, by whoever wants to go on with a deployment that breaks off."""
    nonce = await _nonce(sender, "pending")
    return Begun(nonce, (await sender.rpc.block()).number + 1)


async def untouched(sender: Sender, begun: Begun) -> bool:
    """Whether nothing was sent since."""
    return await _nonce(sender, "pending") == begun.nonce


async def _nonce(sender: Sender, tag: str) -> int:
    return int(await sender.rpc.call("eth_getTransactionCount", "0x" + sender.address.hex(), tag), 16)


async def _missing(sender: Sender, begun: Begun, addresses: Sequence[bytes]) -> int:
    """How many contracts, the last ones, are still to be made. ChainError `deploy_raced` where the account sent
    something that is none of them."""
    with trio.move_on_after(PENDING_S):
        while await _nonce(sender, "latest") < await _nonce(sender, "pending"):  # noqa: ASYNC110 - the chain's
            await trio.sleep(PENDING_POLL_S)
    codes = [await sender.rpc.call("eth_getCode", "0x" + address.hex(), "latest") for address in addresses]
    made: int = sum(code != "0x" for code in codes)
    sent = await _nonce(sender, "pending") - begun.nonce
    funded = made == len(addresses) and sent == made + 1
    if any(code == "0x" for code in codes[:made]) or not (sent == made or funded):
        raise _raced()
    return len(addresses) - made


def _raced() -> ChainError:
    return ChainError(
        "deploy_raced",
        "Something else was sent from the deploying account meanwhile.",
        reverted=False,
        remedy="Deploy again, with an account that nothing else uses.",
    )


async def deploy(
    sender: Sender,
    parameters: Parameters,
    *,
    supply_wei: int = SUPPLY_WEI,
    randomness: Randomness = "blockhash",
    machine: abi.Machine = "cancun",
    begun: Begun | None = None,
) -> Contracts:
    """One transaction of the sender for each contract, and one that funds Rewards; the sender receives the rest of the
    supply. Nothing else may be sent from it meanwhile. With `begun`, a deployment that broke off, with the same terms,
    goes on: what is at the computed addresses is kept.

    ChainError `deploy_raced` where something else was sent: the contracts that were made then do not know each other;
    `no_gas_coin` where the account cannot pay for all that is missing.
    """
    assert machine == "cancun" or randomness == "none", "the contracts of quarrels are not made for old machines"
    rpc, names = sender.rpc, made_of(randomness)
    begun = begun or await begin(sender)
    where = {_ROLES[name]: contract_address(sender.address, begun.nonce + i) for i, name in enumerate(names)}
    if randomness == "none":
        # Nobody may ever call the escrow as one of these, and an address where nothing is could be the deployer's to
        # fill one day. The token calls nobody. The court's half of the fees goes to Rewards, which pays it out again.
        where |= {"claims": where["token"], "accusations": where["token"], "court": where["rewards"]}
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
    left = await _missing(sender, begun, [where[_ROLES[name]] for name in names])
    creations: dict[str, bytes] = {}
    for name in names[len(names) - left :]:
        interface = abi.load(name)
        values = {**known, "windows": windows.get(name)}
        arguments = [values[argument.rstrip("_")] for argument in interface.constructor_arguments]
        creations[name] = interface.creation(*arguments, code=abi.creation_code(name, machine))
    if creations:
        await sender.refuse_short(list(creations.values()), FUNDING_GAS)
    for name, creation in creations.items():
        mined = await sender.send(b"", creation)
        if mined.contract != where[_ROLES[name]]:
            raise _raced()
    token = Token(rpc, where["token"])
    if not await token.balance_of(where["rewards"]):
        await token.transfer(sender, where["rewards"], min(parameters.rewards_wei, supply_wei // 2))
    found = await Registry(rpc, where["registry"], token).read("escrow")
    assert found == where["escrow"], "the registry names another escrow than the one deployed"
    return Contracts(
        token=checksum(where["token"]),
        registry=checksum(where["registry"]),
        escrow=checksum(where["escrow"]),
        rewards=checksum(where["rewards"]),
        deployed_block=begun.block,
        **({} if randomness == "none" else {role: checksum(where[role]) for role in _COURTS}),
    )
