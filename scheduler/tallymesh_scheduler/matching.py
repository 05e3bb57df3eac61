"""Which peers a job should be offered to, at what price and for how many units; and why not the others.

Pure: offers, terms, `now` and a seed in, a plan with its rejections out. The payer's node carries it out and may be
told no by any peer. This module does not know signatures, connections or the chain.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tallymesh import amounts, cards
from tallymesh.messages import Offer

# A lease gets this much more than an even share of the units, so that a peer that is faster than the others can go on
# and void units can be done again without a new seat (a transaction and a first audit).
LEASE_HEADROOM = 1.5


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One offer as this node knows it: what it says, and what the chain and our own experience say of its account."""

    offer: Offer
    peer_id: str
    slots: int  # live slots on chain
    free_stake: int  # wei not locked by other seats
    owner: bytes
    chain_class: bytes  # numeric class effective on chain, b"" for none
    class_accounts: int  # accounts in that class besides this one
    class_share_bp: int  # share of all slots in that class besides this one's
    free_cores: int  # offered cores less those that this node's own leases hold
    room: int = 0  # wei that one more seat of it may be worth while it has no slot; see `newcomer`
    unreachable: str = ""  # sentence of the last failed dial, "" if it answered or was not tried
    distrust: str = ""  # why this payer does not want it: convicted, gave up, refused
    base_only: bool = False  # said no to a job with packages: its owner allows the base set only
    doubt: str = ""  # why this payer asks others first, whatever they ask for: was late, or took a seat for nothing

    @property
    def newcomer(self) -> bool:
        """Nothing is at stake for it yet, or it could not pay for the transaction that says its class: only payers
        that allow it, and audit every unit, give it work."""
        return self.slots < 1 or not any(self.chain_class)


class MatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage of a job needs now."""

    payer: bytes
    payer_owner: bytes
    numeric_class: bytes  # units are compared bit for bit inside one class
    cores: int = 1
    memory_mib: int = 0
    disk_mib: int = 0
    gpus: int = 0
    price_max: int = 0  # wei per reference-second, 0 for any
    work_ms: int = 1000
    units_left: int = 1
    width: int = 1  # units that can run side by side
    wages: int = 0  # wei that may still be seated
    lock: int = 0  # stake a seat locks
    workers_max: int = 0  # 0: as many as are useful
    class_accounts_min: int = 1
    class_share_min_bp: int = 0
    packages: bool = False  # the job brings some
    newcomers: bool = False  # accounts on probation may be asked, too
    busy: frozenset[bytes] = frozenset()  # accounts that hold a seat of this stage already
    # Where each unit is run by several owners: how many runs one account can take (0 for any number), how many owners
    # are needed at least, and the owners that hold a seat already (None where owners do not matter).
    positions_max: int = 0
    owners_min: int = 1
    busy_owners: frozenset[bytes] | None = None


class Rejection(msgspec.Struct, frozen=True):
    """Why one offer does not fit. `code` groups them: "3 too little memory (8 < 24 GiB)"."""

    account: bytes
    code: str
    sentence: str


class Proposal(msgspec.Struct, frozen=True):
    """Ask this peer for a lease of `positions` units at `price` wei each."""

    candidate: Candidate
    price: int
    positions: int


class Waiting(msgspec.Struct, frozen=True):
    """Why nothing (more) can be proposed. `needed_wei` is set where money is what is missing."""

    code: str
    sentence: str
    needed_wei: int = 0


class Match(msgspec.Struct, frozen=True):
    proposals: tuple[Proposal, ...]
    rejections: tuple[Rejection, ...]
    waiting: Waiting | None = None


def unit_price_up(ask_price: int, work_ms: int) -> int:
    """Wei for one unit of `work_ms` reference-milliseconds at `ask_price` wei per reference-second, rounded up."""
    return -(-ask_price * work_ms // 1000)


def match(request: MatchRequest, candidates: Sequence[Candidate], now: int, seed: int) -> Match:
    """Those without a doubt first, then the cheapest, ties broken by the seed; each offer that is passed over gets a
    reason.

    The same inputs give the same plan. Proposals never cost more than `request.wages` together, and leave room for one
    more seat of the same size where there are wages for it, so that a peer that dies can be replaced.
    """
    fitting: list[Candidate] = []
    rejections: list[Rejection] = []
    for candidate in candidates:
        reason = _reason(request, candidate, now)
        if reason:
            rejections.append(Rejection(candidate.offer.account, *reason))
        else:
            fitting.append(candidate)
    fitting.sort(
        key=lambda c: (
            bool(c.doubt),
            c.offer.ask_price,
            c.newcomer,
            -c.offer.cpu_score,
            _tiebreak(c.offer.account, seed),
        )
    )
    if request.busy_owners is not None:
        fitting = _one_each(fitting, request.busy_owners, rejections)
    if request.units_left <= 0:
        return Match((), tuple(rejections))
    if not fitting:
        return Match((), tuple(rejections), Waiting("no_offers", summary(rejections)))
    proposals = _size(request, fitting)
    if not proposals:
        price = unit_price_up(fitting[0].offer.ask_price, request.work_ms)
        needed = price * request.units_left
        asked, left = amounts.show_up(price), amounts.show(request.wages)
        sentence = f"The cheapest fitting offer asks {asked} for a unit, and {left} of wages are left."
        return Match((), tuple(rejections), Waiting("budget_too_small", sentence, needed))
    chosen = {proposal.candidate.offer.account for proposal in proposals}
    for candidate in fitting:
        if candidate.offer.account not in chosen:
            sentence = f"Others come first: {candidate.doubt}" if candidate.doubt else "Cheaper offers are enough."
            rejections.append(Rejection(candidate.offer.account, "not_needed", sentence))
    return Match(tuple(proposals), tuple(rejections))


_ADVICE: Final = {
    "too_expensive": "Raise max_price, or leave it out for any price.",
    "too_little_memory": "Ask for less memory in require=.",
    "too_little_disk": "Ask for less disk in require=.",
    "too_few_cores": "Ask for fewer cores in require=.",
    "no_gpus": "Leave gpu= out of require=, or wait for offers of owners who sell GPUs.",
    "too_few_gpus": "Ask for fewer GPUs in require=.",
    "base_only": "Do without requires=, or wait for offers of other owners.",
    "cores_taken": "It begins when other work of theirs ends.",
    "unstaked": "Allow accounts on probation: newcomers=True. All that they do is audited.",
    "newcomer_full": "It begins when other work of theirs is paid.",
}


def advice(rejections: Sequence[Rejection]) -> str:
    """What the submitter can do about the commonest reason; "" where it is not up to them."""
    counts = Counter(rejection.code for rejection in rejections).most_common(1)
    return _ADVICE.get(counts[0][0], "") if counts else ""


def summary(rejections: Sequence[Rejection]) -> str:
    """One line for people: ``rejected 4 offers: 3 too_little_memory (8 < 24 GiB), 1 expired``."""
    if not rejections:
        return "No offer has been seen yet."
    example = {rejection.code: rejection.sentence for rejection in reversed(rejections)}
    counts = Counter(rejection.code for rejection in rejections).most_common()
    parts = ", ".join(f"{count} {code} ({example[code].rstrip('.')})" for code, count in counts)
    return f"Rejected {len(rejections)} offer{'s' if len(rejections) > 1 else ''}: {parts}."


def _reason(request: MatchRequest, candidate: Candidate, now: int) -> tuple[str, str] | None:
    for check in _CHECKS:
        found = check(request, candidate, now)
        if found:
            return found
    return None


Check = Callable[[MatchRequest, Candidate, int], tuple[str, str] | None]


def _own(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    if c.offer.account == r.payer or c.owner in (r.payer, r.payer_owner):
        return "own_node", "It belongs to the payer."
    return None


def _expired(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    return ("expired", f"It ran out {now - c.offer.expires} s ago.") if c.offer.expires <= now else None


def _busy(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    if c.offer.account in r.busy:
        return "has_seat", "It holds a seat of this job already."
    return None


def _distrust(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    return ("distrusted", c.distrust) if c.distrust else None


def _reachable(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    return ("unreachable", c.unreachable) if c.unreachable else None


def _staked(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    if c.slots < 1 and not r.newcomers:
        return "unstaked", "Its account holds no slot."
    if c.slots < 1:
        price = unit_price_up(c.offer.ask_price, r.work_ms)
        if c.room < max(1, price):
            room, unit = amounts.show(c.room), amounts.show_up(price)
            return "newcomer_full", f"It is on probation: {room} more may be open, and a unit costs {unit}."
        return None
    if c.free_stake < r.lock:
        free, lock = amounts.show(c.free_stake), amounts.show_up(r.lock)
        return "stake_locked", f"It has {free} of free stake and a seat locks {lock}."
    return None


def _kind(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    """Units compute on cards or on cores, and what they give differs: an owner sells one or the other."""
    sold = cards.count(c.offer.gpus)
    if r.gpus and not sold:
        return "no_gpus", "Its owner sells no GPU."
    if sold and not r.gpus:
        return "sells_gpus", "It sells GPUs, to jobs that ask for one."
    return ("too_few_gpus", f"{sold} < {r.gpus}.") if sold < r.gpus else None


def _class(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    if c.offer.provisional:
        return "provisional", "Its numeric class is still being measured."
    if c.offer.numeric_class != r.numeric_class:
        return (
            "other_class",
            f"Its numeric class is {c.offer.numeric_class[:4].hex()}, not {r.numeric_class[:4].hex()}.",
        )
    if c.chain_class != c.offer.numeric_class and not (r.newcomers and not any(c.chain_class)):
        return "class_pending", "Its numeric class is not yet effective on chain."
    if c.class_accounts < r.class_accounts_min or c.class_share_bp < r.class_share_min_bp:
        return "rare_class", (
            f"Its numeric class has {c.class_accounts} other accounts with {c.class_share_bp / 100:.1f} % of the "
            f"stake; {r.class_accounts_min} with {r.class_share_min_bp / 100:.1f} % are needed to check it."
        )
    return None


def _packages(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    return ("base_only", "Its owner allows the base set only.") if r.packages and c.base_only else None


def _hardware(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    offer = c.offer
    if offer.memory_mib < r.memory_mib:
        return "too_little_memory", f"{offer.memory_mib / 1024:.1f} < {r.memory_mib / 1024:.1f} GiB."
    if offer.disk_mib < r.disk_mib:
        return "too_little_disk", f"{offer.disk_mib / 1024:.1f} < {r.disk_mib / 1024:.1f} GiB."
    if offer.cores < r.cores:
        return "too_few_cores", f"{offer.cores} < {r.cores}."
    if c.free_cores < r.cores:
        return "cores_taken", f"{c.free_cores} of its {offer.cores} cores are free."
    return None


def _price(r: MatchRequest, c: Candidate, now: int) -> tuple[str, str] | None:
    if r.price_max and c.offer.ask_price > r.price_max:
        asked, ceiling = amounts.show_per_core_hour(c.offer.ask_price), amounts.show_per_core_hour(r.price_max)
        return "too_expensive", f"It asks {asked} per core-hour, the ceiling is {ceiling}."
    return None


_CHECKS: tuple[Check, ...] = (
    _own,
    _expired,
    _busy,
    _distrust,
    _staked,
    _kind,
    _class,
    _reachable,
    _packages,
    _hardware,
    _price,
)


def _one_each(fitting: Sequence[Candidate], busy: frozenset[bytes], rejections: list[Rejection]) -> list[Candidate]:
    """One account of each owner: what two of the same owner agree on is one opinion."""
    seen, found = set(busy), []
    for candidate in fitting:
        if candidate.owner in seen:
            sentence = "Another account of its owner runs these units; a second run has to be somebody else's."
            rejections.append(Rejection(candidate.offer.account, "same_owner", sentence))
        else:
            seen.add(candidate.owner)
            found.append(candidate)
    return found


def _size(request: MatchRequest, fitting: Sequence[Candidate]) -> list[Proposal]:
    """As many peers as can work side by side, each with an equal share of the units and some headroom."""
    wanted = min(request.width, request.units_left)
    chosen: list[Candidate] = []
    for candidate in fitting:
        enough = wanted <= 0 and len(chosen) >= request.owners_min
        if enough or (request.workers_max and len(chosen) >= request.workers_max):
            break
        chosen.append(candidate)
        wanted -= candidate.free_cores // request.cores
    most = request.positions_max or request.units_left  # for one account
    while chosen:
        dearest = unit_price_up(chosen[-1].offer.ask_price, request.work_ms)
        share = min(most, -(-request.units_left // len(chosen)))
        roomy = max(share, min(request.units_left, most, int(share * LEASE_HEADROOM + 1)))
        # Leave room for one more seat of this size where the wages allow it; never promise more than there is.
        with_spare = request.wages // (dearest * (len(chosen) + 1)) if dearest else roomy
        without = request.wages // (dearest * len(chosen)) if dearest else roomy
        positions = min(roomy, with_spare) if with_spare >= share else min(share, without)
        if positions >= 1 and positions * len(chosen) >= min(
            request.units_left, most * len(chosen), without * len(chosen)
        ):
            return [_proposal(request, candidate, positions) for candidate in chosen]
        chosen.pop()
    return []


def _proposal(request: MatchRequest, candidate: Candidate, positions: int) -> Proposal:
    """An account without a slot gets no more than the escrow would seat; others take the rest when it is missed."""
    price = unit_price_up(candidate.offer.ask_price, request.work_ms)
    if candidate.slots < 1:
        positions = min(positions, candidate.room // max(1, price))
    return Proposal(candidate, price, positions)


def _tiebreak(account: bytes, seed: int) -> bytes:
    return hashlib.blake2b(account + seed.to_bytes(8, "big"), digest_size=8).digest()
