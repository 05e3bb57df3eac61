"""`interfaces.CourtChain` over the contracts, for one account. It decides nothing and keeps no books, except for the
events that it has read: those are read once, and a few of them again, because a chain's newest blocks change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from tallymesh.messages import Lease, Order
from tallymesh.network import Network
from tallymesh_ledger import court
from tallymesh_ledger.chain.abi import Event
from tallymesh_ledger.chain.claims import first_block_at
from tallymesh_ledger.chain.court import Accusations, Court, Disputes, dispute
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.interfaces import CourtChain

AGAIN_BLOCKS = 64  # below the newest block, read again at every look: reorganisations, and nodes that index late
BEFORE_S = 24 * 3600  # kept before the time that was asked for last: who asks for an earlier one pays a new reading
OPENED, CALLED, DRAWN, ACCUSED = "CaseOpened", "PanelCalled", "PanelDrawn", "Accused"  # events
MAX_WITNESSES = 32  # accounts looked at for the few that an accusation names: most are good


def court_of(chain: EscrowChain, network: Network) -> CourtChain | None:
    """None on a network without such contracts: there only Accepts pay, and nobody is accused."""
    contracts = network.contracts
    if not contracts.claims or not contracts.accusations or not contracts.court:
        return None
    return ContractCourt(chain, network)


class _Seen(msgspec.Struct, frozen=True):
    event: Event
    at: int  # chain time


class _Recent:
    """Events of one contract since a time that moves on: read together, and once a block for all who ask."""

    def __init__(
        self, chain: EscrowChain, contract: Court | Accusations, names: Sequence[str], deployed_block: int
    ) -> None:
        self._chain = chain
        self._contract = contract
        self._names = names
        self._deployed_block = deployed_block
        self._seen: dict[tuple[int, int], _Seen] = {}  # (block, index in it)
        self._since: int | None = None
        self._reach_s = 0  # how far back the most patient of those who ask looks
        self._scanned = 0  # block up to which events were read
        self._read_at = 0  # time of the newest block then, as the node's loop knew it; 0 where none runs
        self._asked_at = 0.0  # when the chain was asked last, of trio's clock
        self._turn = trio.Lock()

    async def since(self, name: str, time: int) -> list[_Seen]:
        async with self._turn:
            now = self._chain.block_time()
            first = self._since is None or time < self._since
            if first or not now or (now != self._read_at and not self._silent()):
                await self._read(time)
            self._read_at = now
            return [seen for seen in self._seen.values() if seen.event.name == name and seen.at >= time]

    def _silent(self) -> bool:
        newest = self._chain.newest
        if not newest.silent(self._contract.address, self._scanned, self._asked_at):
            return False
        self._scanned = newest.number or self._scanned
        return True

    async def _read(self, time: int) -> None:
        self._asked_at = trio.current_time()
        newest = await self._chain.rpc.block()
        head, self._reach_s = newest.number, max(self._reach_s, newest.timestamp - time)
        if self._since is None or time < self._since:
            self._seen, self._since = {}, time
            start = await first_block_at(self._chain.rpc, time, self._deployed_block)
        else:
            self._since = max(self._since, newest.timestamp - self._reach_s - BEFORE_S)
            start = max(self._deployed_block, min(self._scanned, head) - AGAIN_BLOCKS)
        found = {place: seen for place, seen in self._seen.items() if place[0] < start and seen.at >= self._since}
        for event in await self._contract.events(self._names, start, head):
            block = await self._chain.rpc.block(event.block_number)
            self._chain.newest.judge(block, self._contract.address)
            found[event.block_number, event.index] = _Seen(event, block.timestamp)
        self._seen, self._scanned = dict(sorted(found.items())), head


class ContractCourt:
    def __init__(self, chain: EscrowChain, network: Network) -> None:
        contracts, token = network.contracts, chain.contracts.token
        self.chain = chain
        self.sender = chain.sender
        self.court = Court(chain.rpc, bytes.fromhex(contracts.court[2:]), token)
        self.accusing = Accusations(chain.rpc, bytes.fromhex(contracts.accusations[2:]), token)
        self.disputes = Disputes(chain.rpc, bytes.fromhex(contracts.claims[2:]), token)
        self._events = _Recent(chain, self.court, [OPENED, CALLED, DRAWN], contracts.deployed_block)
        self._accused = _Recent(chain, self.accusing, [ACCUSED], contracts.deployed_block)
        self._terms: court.Terms | None = None

    # ---- reads

    async def terms(self) -> court.Terms:
        if self._terms is None:
            self._terms = await self.court.terms()
        return self._terms

    async def head(self) -> int:
        return await self.chain.head()

    async def case_of(self, case: bytes) -> court.Case | None:
        return await self.court.case_of(case)

    async def parties_of(self, case: bytes) -> court.Parties:
        return await self.court.parties_of(case)

    async def members(self, case: bytes, size: int) -> list[court.Member]:
        return await self.court.members(case, size)

    async def ballots(self, case: bytes, round_: int, size: int) -> list[court.Ballot]:
        return await self.court.ballots(case, round_, size)

    async def panels(self, since: int) -> list[bytes]:
        return list(dict.fromkeys(seen.event.values["id"] for seen in await self._events.since(DRAWN, since)))

    async def called(self, since: int) -> list[bytes]:
        return list(dict.fromkeys(seen.event.values["id"] for seen in await self._events.since(CALLED, since)))

    async def cases(self, account: bytes, since: int) -> list[court.Opened]:
        found = []
        for seen in await self._events.since(OPENED, since):
            values = seen.event.values
            if account in (values["accused"], values["accuser"]):
                found.append(
                    court.Opened(
                        case=values["id"],
                        accused=values["accused"],
                        accuser=values["accuser"],
                        dispute=dispute(values["dispute"]),
                        block=seen.event.block_number,
                        at=seen.at,
                    )
                )
        return found

    async def origin(self, case: bytes) -> court.Origin | None:
        newest = await self.chain.rpc.block()
        since = newest.timestamp - (await self.terms()).case_s - BEFORE_S
        opened = [seen for seen in await self._events.since(OPENED, since) if seen.event.values["id"] == case]
        if not opened:
            return None
        event = opened[-1].event
        block, steps = event.block_number, event.values["dispute"]["steps"]
        found = await self.accusing.origin(case, block, steps)
        return found or await self.disputes.origin(case, block, newest.number, steps)

    async def accusation_of(self, accusation: bytes) -> court.Accusation | None:
        return await self.accusing.accusation_of(accusation)

    async def accusations(self, seat: bytes, since: int) -> list[court.Accused]:
        found = []
        for seen in await self._accused.since(ACCUSED, since):
            values: dict[str, Any] = seen.event.values
            if values["seat"] == seat:
                found.append(
                    court.Accused(
                        id=values["accusation"],
                        seat=seat,
                        accuser=values["accuser"],
                        position=values["position"],
                        bond=values["bond"],
                        block=seen.event.block_number,
                        at=seen.at,
                    )
                )
        return found

    async def witnesses(self, order: Order, lease: Lease) -> list[int]:
        """Chosen from the registry as its events tell it, then held against its own word: an account with a debt counts
        for nobody, which no event of its slots says."""
        terms = await self.terms()
        newest = await self.chain.view.newest(0)
        good = newest.admissible(
            payer=order.payer,
            signer=order.signer,
            worker=lease.worker,
            numeric_class=lease.numeric_class,
            excluded=(self.chain.account,),
        )
        mine = newest.owner_of(self.chain.account)
        others = sorted(account for account in good if newest.owner_of(account) != mine)
        slots = [newest.slots.index(account) for account in others[:MAX_WITNESSES]]
        drawn = await self.chain.contracts.registry.read_many(
            [("drawn", [slot, newest.block_number]) for slot in slots]
        )
        sound = [slot for slot, (account, *_) in zip(slots, drawn, strict=True) if any(account)]
        return sound[: terms.quorum]

    async def lock_left(self, lease: Lease) -> int:
        return int(await self.chain.contracts.escrow.read("lockLeft", lease))

    async def tokens(self) -> int:
        return await self.court.token.balance_of(self.chain.account)

    async def held(self, account: bytes) -> court.Held:
        async def ask() -> court.Held:
            credits = await self.court.credit_of(account), await self.accusing.credit_of(account)
            return court.Held(court=credits[0], accusations=credits[1])

        return await self.chain.quiet.ask(("court", account), ask)

    # ---- writes

    async def accuse(
        self, order: Order, lease: Lease, charge: court.Charge, witnesses: Sequence[int], *, brings_wei: int | None
    ) -> None:
        bond = (await self.terms()).accusation_bond(order)
        await self.accusing.accuse(self.sender, order, lease, charge, witnesses, bond=bond, brings_wei=brings_wei)

    async def fraud(
        self,
        order: Order,
        lease: Lease,
        position: int,
        one: court.Statement,
        other: court.Statement,
        *,
        brings_wei: int | None,
    ) -> None:
        await self.accusing.fraud(self.sender, order, lease, position, one, other, brings_wei=brings_wei)

    async def post(self, case: bytes, value: bytes, *, brings_wei: int | None = None) -> None:
        await self.court.post(self.sender, case, value, brings_wei=brings_wei)

    async def answer(self, case: bytes, value: bytes, *, brings_wei: int | None = None) -> None:
        await self.court.answer(self.sender, case, value, brings_wei=brings_wei)

    async def appeal(self, case: bytes, *, brings_wei: int | None = None) -> None:
        await self.court.appeal(self.sender, case, (await self.terms()).appeal_fee, brings_wei=brings_wei)

    async def commit(self, case: bytes, member: court.Member, commitment: bytes, *, brings_wei: int | None) -> None:
        await self.court.commit(self.sender, case, member, commitment, brings_wei=brings_wei)

    async def reveal(
        self, case: bytes, member: int, result: bytes, salt: bytes, *, brings_wei: int | None = None
    ) -> None:
        await self.court.reveal(self.sender, case, member, result, salt, brings_wei=brings_wei)

    async def advance(self, case: bytes, *, brings_wei: int | None = None) -> None:
        await self.court.advance(self.sender, case, brings_wei=brings_wei)

    async def acquit_or_convict(self, lease: Lease, accusation: bytes, *, brings_wei: int | None = None) -> None:
        await self.accusing.acquit_or_convict(self.sender, lease, accusation, brings_wei=brings_wei)

    async def collect_court(self) -> None:
        await self.court.withdraw(self.sender, self.chain.account)

    async def collect_accusations(self) -> None:
        await self.accusing.withdraw(self.sender, self.chain.account)
