"""`interfaces.ClaimsChain` over the contracts, for one account. It decides nothing and keeps no books, except for the
events that it has read: those are read once, and a few of them again, because a chain's newest blocks change.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from tallymesh.messages import Lease, Order
from tallymesh.network import Network
from tallymesh.wire import Signed
from tallymesh_ledger.chain.claims import Claims, first_block_at
from tallymesh_ledger.claims import Claim, Draw, Finding, Sample, Shown, SignedOpening, Terms
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.interfaces import ClaimsChain

AGAIN_BLOCKS = 64  # below the newest block, read again at every look: reorganisations, and nodes that index late
MAX_WITNESSES = 32  # accounts looked at for the few that a claim names: most are good


class _Captured(msgspec.Struct, frozen=True):
    claim: bytes
    at: int  # chain time
    block: int


def claims_of(chain: EscrowChain, network: Network) -> ClaimsChain | None:
    """None on a network without such contracts: there only Accepts pay."""
    contracts = network.contracts
    if not contracts.claims or not contracts.court:
        return None
    address, court = bytes.fromhex(contracts.claims[2:]), bytes.fromhex(contracts.court[2:])
    return ContractClaims(chain, Claims(chain.rpc, address, chain.contracts.token, court), contracts.deployed_block)


class ContractClaims:
    def __init__(self, chain: EscrowChain, claims: Claims, deployed_block: int) -> None:
        self.chain = chain
        self.claims = claims
        self.sender = chain.sender
        self._deployed_block = deployed_block
        self._captured: dict[bytes, _Captured] = {}
        self._scanned = 0  # block up to which events were read; 0: none were
        self._read_at = 0.0  # of trio's clock
        self._turn = trio.Lock()
        self._terms: Terms | None = None

    # ---- reads

    async def terms(self) -> Terms:
        if self._terms is None:
            self._terms = await self.claims.terms()
        return self._terms

    async def head(self) -> int:
        return (await self.chain.rpc.block()).number

    async def claim_of(self, claim: bytes) -> Claim | None:
        return await self.claims.claim_of(claim)

    async def quarrels(self, seat: bytes) -> tuple[bytes, int]:
        return await self.claims.quarrels_of(seat)

    async def samples(self, claim: bytes, k: int) -> list[Sample]:
        return await self.claims.samples_of(claim, k)

    async def draws(self, claim: bytes, k: int) -> list[Draw]:
        return await self.claims.draws_of(claim, k)

    async def captured(self, since: int) -> list[bytes]:
        async with self._turn:
            newest = self.chain.newest
            if self._scanned and newest.silent(self.claims.address, self._scanned, self._read_at):
                self._scanned = newest.number or self._scanned
                return [each.claim for each in self._captured.values() if each.at >= since]
            self._read_at = trio.current_time()
            head = await self.head()
            if not self._scanned:
                start = await first_block_at(self.chain.rpc, since, self._deployed_block)
            else:
                start = max(self._deployed_block, min(self._scanned, head) - AGAIN_BLOCKS)
            events = await self.claims.events(["Captured"], start, head)
            found = {each.claim: each for each in self._captured.values() if each.block < start and each.at >= since}
            for event in events:
                block = await self.chain.rpc.block(event.block_number)
                newest.judge(block, self.claims.address)
                claim = event.values["claim"]
                found[claim] = _Captured(claim, block.timestamp, event.block_number)
            self._captured, self._scanned = found, head
        return [each.claim for each in found.values() if each.at >= since]

    async def leaf(self, claim: bytes, sample: int, since_block: int) -> tuple[bytes, bytes] | None:
        for event in await self.claims.events(["LeafOpened"], since_block, await self.head(), claim=claim):
            if event.values["sample"] == sample:
                return event.values["start"], event.values["end"]
        return None

    async def shown(self, claim: bytes, seat: bytes, since_block: int) -> list[Shown]:
        return await self.claims.shown(claim, seat, since_block, await self.head())

    async def lease_of(self, claim: bytes, since_block: int) -> Lease | None:
        return await self.claims.lease_of(claim, since_block)

    async def witnesses(self, order: Order, lease: Lease) -> list[int]:
        """Chosen from the registry as its events tell it, then held against its own word: an account with a debt counts
        for nobody, which no event of its slots says."""
        terms = await self.terms()
        newest = await self.chain.view.newest(0)
        good = newest.admissible(
            payer=order.payer, signer=order.signer, worker=lease.worker, numeric_class=lease.numeric_class, excluded=()
        )
        slots = [newest.slots.index(account) for account in sorted(good)[:MAX_WITNESSES]]
        drawn = await self.chain.contracts.registry.read_many(
            [("drawn", [slot, newest.block_number]) for slot in slots]
        )
        sound = [slot for slot, (account, *_) in zip(slots, drawn, strict=True) if any(account)]
        return sound[: terms.quorum]

    async def ruled(self, case: bytes) -> bool:
        return await self.claims.court.ruled(case)

    async def tokens(self) -> int:
        return await self.claims.token.balance_of(self.chain.account)

    async def held(self, account: bytes) -> int:
        return await self.chain.quiet.ask(("claims", account), lambda: self.claims.credit_of(account))

    # ---- writes

    async def claim(
        self, order: Order, lease: Lease, tally: Signed, witnesses: Sequence[int], *, bond: int, brings_wei: int
    ) -> None:
        await self.claims.claim(
            self.sender, order, lease, tally.message, tally.signature, witnesses, brings_wei=brings_wei
        )

    async def capture(self, claim: bytes) -> None:
        await self.claims.capture(self.sender, claim)

    async def commit(self, claim: bytes, draw: Draw, commitment: bytes, *, bond: int, brings_wei: int) -> None:
        await self.claims.commit(self.sender, claim, draw, commitment, bond=bond, brings_wei=brings_wei)

    async def show(self, claim: bytes, openings: Sequence[SignedOpening]) -> None:
        await self.claims.open(self.sender, claim, openings)

    async def reveal(self, claim: bytes, sample: int, finding: Finding) -> None:
        await self.claims.reveal(self.sender, claim, sample, finding)

    async def rule(self, lease: Lease, claim: bytes, sample: int) -> None:
        await self.claims.rule(self.sender, lease, claim, sample)

    async def conclude(self, lease: Lease, claim: bytes, *, brings_wei: int | None = None) -> None:
        await self.claims.conclude(self.sender, lease, claim, brings_wei=brings_wei)

    async def collect(self) -> None:
        await self.claims.withdraw(self.sender, self.chain.account)
