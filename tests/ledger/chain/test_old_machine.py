"""A chain like Theta: Istanbul's EVM, one price of gas, its chain id. One command makes a network there, on which
Accepts pay, to the last wei, through the same client; what cannot run there is refused before anything is paid."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from fakes import hardhat as hardhats
from fakes.hardhat import Hardhat
from fakes.shell import CliRunner
from tallymesh import network as networks
from tallymesh.errors import ChainError
from tallymesh.parameters import Parameters
from tallymesh_ledger import keystore
from tallymesh_ledger.chain import Contracts, Rpc, SeatEnd, Sender, abi, machine, randomness
from tallymesh_ledger.presets import preset
from tallymesh_node.cli.app import app

PASSWORD = "a word for the tests"
SHORT = {"claim_window_s": 0, "evidence_window_s": 1, "lock_tail_s": 1, "unbonding_s": 1, "class_delay_s": 1}


@pytest.fixture(scope="module")
def theta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardhat]:
    if not hardhats.installed():
        pytest.skip("hardhat is not installed: scripts/contracts build")
    made = Hardhat(tmp_path_factory.mktemp("theta"), Parameters(), hardfork="istanbul", chain_id=361)
    yield made
    made.stop()


def command(folder: Path, *arguments: str) -> dict:
    names = {name: None for name in os.environ if name.startswith("TALLYMESH_")}
    folder.mkdir(exist_ok=True)
    (folder / "word").write_text(PASSWORD + "\n")
    asked = [*arguments, "--password-file", str(folder / "word"), "--yes", "--json"]
    done = CliRunner(env={**names, "TALLYMESH_HOME": str(folder)}).invoke(app, asked)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    told: dict = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def chain(theta: Hardhat) -> Hardhat:
    """With the network that the command made: its wallet is the account that has all the coin."""
    keystore.import_secret(theta.folder / "wallet.json", theta.key.secret, PASSWORD)
    terms, out = theta.folder / "terms.json", theta.folder / "network.json"
    terms.write_text(json.dumps(SHORT))
    asked = ["--preset", "theta", "--rpc", theta.url, "--parameters", str(terms), "--out", str(out)]
    told = command(theta.folder, "network", "deploy", *asked)
    assert told["pays"] == "Accepts only", told
    theta.network = networks.load(out)
    return theta


@pytest.mark.slow  # hardhat's node, and four contracts
async def test_accepts_pay_to_the_last_wei_where_there_is_neither_claim_nor_court(
    chain: Hardhat, rpc: Rpc, contracts: Contracts, deal, until
) -> None:
    network = chain.network
    assert (network.chain_id, network.chain.coin, network.parameters.claim_bond_wei) == (361, "TFUEL", 0)
    assert (network.contracts.claims, network.contracts.accusations, network.contracts.court) == ("", "", "")
    blocks = range(network.contracts.deployed_block, (await rpc.block()).number + 1)  # those by the clock are empty
    found = [await rpc.call("eth_getBlockByNumber", hex(number), True) for number in blocks]
    sent = [transaction for block in found for transaction in block["transactions"]]
    assert sent
    assert all(int(transaction["gasPrice"], 16) >= 4_000 * 10**9 for transaction in sent)

    job = await deal(workers=2)
    escrow, token, worker = contracts.escrow, contracts.token, job.workers[0]
    assert contracts.rewards is not None
    pool = await token.balance_of(contracts.rewards.address)
    opened = await escrow.open(job.payer, job.order, job.seatings())
    assert opened.refused == {}
    paid = await escrow.settle(worker, [job.settlement(0, 10), job.settlement(1, 4)])
    assert [event.values["units"] for event in paid.of("Settled")] == [10, 4]
    closing = job.closing(1, 4)
    end = SeatEnd(job.leases[1], None, b"", closing.release, closing.signature)
    assert (await escrow.finish(job.payer, job.order, [end])).refused == {}

    async def all_refundable() -> bool:
        return (await escrow.refundable(job.order))[1] > 0  # the reserve's, when its window is over

    await until(all_refundable)
    await escrow.refund(job.payer, job.order)
    for party in (job.payer.address, *(each.address for each in job.workers)):
        owed, had = await escrow.credit_of(party), await token.balance_of(party)
        assert owed
        await escrow.withdraw(worker, party)
        assert await token.balance_of(party) == had + owed

    fees = await escrow.fees_to_burn()
    await escrow.write(worker, "burnFees")
    await escrow.withdraw(worker, contracts.rewards.address)  # the half that a court would get
    assert await token.balance_of(contracts.rewards.address) == pool + fees > pool
    assert await token.balance_of(escrow.address) == 0
    with pytest.raises(ChainError) as caught:  # nobody speaks for claims: not the account that deployed either
        await escrow.write(Sender(rpc, chain.key), "letGo", job.leases[0])
    assert caught.value.code == "not_claims"


@pytest.mark.slow
def test_its_machine_is_noticed_and_its_lack_of_claims_has_to_be_wanted(theta: Hardhat) -> None:
    keystore.import_secret(theta.folder / "other" / "wallet.json", theta.key.secret, PASSWORD)
    out = str(theta.folder / "other.json")
    told = command(theta.folder / "other", "network", "deploy", "--rpc", theta.url, "--out", out)
    assert told["error"]["code"] == "no_randomness"
    assert "--accepts-only" in told["error"]["remedy"]


@pytest.mark.parametrize("name", abi.DEPLOYED)
def test_the_code_for_old_machines_was_made_of_the_sources_of_today(name: str) -> None:
    """`scripts/sync_abi` makes both; the old one's file says of which new one it is the brother."""
    text = resources.files("tallymesh_ledger").joinpath("abi", "istanbul", f"{name}.json").read_text()
    made = json.loads(text)
    assert made["of"] == hashlib.sha256(("0x" + abi.load(name).bytecode.hex()).encode()).hexdigest(), "scripts/sync_abi"
    assert made["deployedBytes"] < 24_576  # where contracts end on every chain


def test_each_preset_says_what_its_contracts_draw_from() -> None:
    assert {name: preset(name).randomness for name in ("theta", "arbitrum", "base", "sepolia")} == {
        "theta": "none", "arbitrum": "none", "base": "history", "sepolia": "history"
    }  # fmt: skip


async def test_a_chain_of_today_has_hashes_of_its_own(embedded) -> None:
    async with Rpc(embedded.network.rpc_urls, chain_id=embedded.network.chain_id) as rpc:
        assert await machine.choose(rpc) == "cancun"
        assert await randomness.find(rpc) == "blockhash"  # nobody put EIP-2935's contract there
