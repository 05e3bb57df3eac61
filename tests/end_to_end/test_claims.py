"""A payer's process is gone for good before it accepts: its worker gets its money through a claim, exact to the wei."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tallymesh
from end_to_end import functions
from end_to_end.scene import Market, wait_until
from end_to_end.test_operator import command
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.abi import Event
from tallymesh_ledger.chain.claims import Claims
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.claims import CLAIM_TALLY, Claim, ClaimState

pytestmark = pytest.mark.end_to_end

WAIT_S = 300.0
UNITS = 30  # twelve seconds of work: time enough to look at it and to kill
DONE = 5  # units whose receipts the payer has when it dies: the first of them is accepted, the others are not
# What the worker waits for a payer that says nothing: longer than a payer that is busy takes to say something, which
# gives a worker up itself after five seconds.
PATIENCE = "6"
MAX_PRICE = "0.01"  # MESH per core-hour: only the worker of this test asks for less


class Seen(NamedTuple):
    """One seat's claim and all events of its seat, as the chain has them."""

    claim: Claim | None
    settled: list[Event]
    bond_taken: list[Event]


def look(market: Market, seat: str) -> Seen:
    network = market.local.network
    first, wanted = network.contracts.deployed_block, bytes.fromhex(seat)

    async def read(rpc: Rpc, contracts: Contracts) -> Seen:
        claims = Claims(
            rpc,
            bytes.fromhex(network.contracts.claims[2:]),
            contracts.token,
            bytes.fromhex(network.contracts.court[2:]),
        )
        head = (await rpc.block()).number
        made = [e for e in await claims.events(["Claimed"], first, head) if e.values["seat"] == wanted]
        assert len(made) <= 1, "one claim is enough"
        found = await claims.claim_of(made[0].values["claim"]) if made else None
        interface = contracts.escrow.interface
        topics = [[interface.topics["Settled"], interface.topics["BondTaken"]], wanted]
        logs = await read_logs(rpc, contracts.escrow.address, topics, first, head)
        events = [event for event in map(interface.event, logs) if event is not None]
        return Seen(
            found,
            [event for event in events if event.name == "Settled"],
            [event for event in events if event.name == "BondTaken"],
        )

    seen: Seen = market.ask(read)
    return seen


def wealth(market: Market, account: str) -> int:
    """Tokens, and credits of the escrow and of Claims, at one block: the node draws what it is owed whenever it likes.
    The stake is left alone."""
    balance = market.balance(account)
    return balance.tokens_wei + balance.credits_wei + balance.awards_wei


def test_a_worker_is_paid_through_a_claim_though_its_payers_process_is_gone_for_good(
    market: Market, tmp_path: Path
) -> None:
    began = time.monotonic()
    unpaid = market.add_ready("unpaid", roles=("worker",), ask_price="0.005", claim_patience_s=PATIENCE)
    account = market.account("unpaid")
    before = wealth(market, account)
    gone = market.add_ready("gone", slots=0, roles=("submit",))
    market.connect("gone")

    def known() -> bool:
        return any(o["account"] == account and o["staked"] and not o["provisional"] for o in gone.get("/v1/offers"))

    gone.wait("the cheapest offer was known to this payer, too", known)
    try:
        work: dict[str, Any] = {"seconds": 0.4, "work": 0.2, "workers": 1}
        job = tallymesh.map(functions.slow, range(UNITS), budget="2.0", max_price=MAX_PRICE, **work)

        def unaccepted() -> Any:
            peers = [peer for peer in job.view.peers if peer.received >= DONE and 0 < peer.accepted < peer.received]
            # The worker has it, too: an Accept that dies with its payer is none.
            return peers[0] if peers and market.view("unpaid").counters.get("worker_accepts") else None

        peer = wait_until("the payer has receipts that no Accept covers", unaccepted, timeout_s=WAIT_S)
        assert peer.account == account, "the only worker at that price has the job"
        gone.kill()
        market.connect()

        def over() -> Seen | None:
            seen = look(market, peer.seat)
            return seen if seen.claim is not None and seen.claim.state.ended else None

        wait_until("the claim has ended", over, timeout_s=WAIT_S, pause_s=0.5)
        seen = look(market, peer.seat)  # once more: it may have ended between that look's events and its claim
        claim = seen.claim
        assert claim.state is ClaimState.PAID, (claim, unpaid.tail())
        assert claim.from_ == peer.accepted, "what was accepted was settled first"
        assert claim.from_ + claim.count >= DONE, "each unit that has a receipt is claimed"
        assert market.paid_units(peer.seat) == claim.from_ + claim.count
        assert not gone.running

        # Exact to the wei: the seat paid its units at their price, and the worker has that more, less the fee.
        amount = sum(event.values["amount"] for event in seen.settled)
        fee = sum(event.values["fee"] for event in seen.settled)
        assert amount == (claim.from_ + claim.count) * claim.price
        assert fee == 2 * (amount * market.local.network.parameters.fee_bp // 20_000), "an even number of wei"
        assert wealth(market, account) - before == amount - fee, "with its bond back"
        taken = sum(event.values["amount"] for event in seen.bond_taken)
        assert taken == claim.k * claim.audit_fee, "the auditors' pay came out of the payer's bond"
        # The worker's owner proves it on the worker's machine; anybody with the chain can check, without the payer.

        def claimed() -> list[dict[str, Any]]:
            """It tells of blocks that are final, which that of the claim's end is a little later."""
            told = command(market, "unpaid", "history", account)
            assert told["adds_up"] is True, (told["totals_wei"], told["chain_wei"])
            return [e for e in told["entries"] if e["event"] == "JobEscrow.Settled" and e["tally"] == CLAIM_TALLY]

        (entry,) = wait_until("the history tells of the claim", claimed, timeout_s=WAIT_S, pause_s=0.5)
        assert entry["receipts"] == {"here": entry["end_unit"] - entry["first_unit"], "proven": True}
        shown = command(market, "unpaid", "receipt", f"{entry['seat']}:{entry['end_unit'] - 1}")
        proof = tmp_path / "proof.json"
        proof.write_text(json.dumps(shown))
        assert shown["proven"] is True
        assert command(market, "unpaid", "receipt", "--check", str(proof), home=tmp_path)["unit"] == shown["unit"]
        counters = wait_until(
            "the bond was drawn",
            lambda: (c := market.view("unpaid").counters).get("claims_withdrawals") and c,
            timeout_s=WAIT_S,
        )
        assert counters["claims_paid"] == 1
        print(f"claimed and paid {time.monotonic() - began:.0f} s after the first node was started")
    finally:
        market.connect()
        market.drop(gone)
        market.drop(unpaid)
