"""What is compared after a call: everything that it could have changed; now and then, and at the end, all there is."""

from __future__ import annotations

from collections.abc import Iterable

from judge.scene import Scene
from judge.sides import DEPLOYED, Step, View
from tallymesh.messages import Lease, Order
from tallymesh_ledger.model.machine import ZERO_WORD


def known(views: Iterable[View]) -> list[View]:
    return [view for view in views if view.contract in DEPLOYED]


def touched(scene: Scene, step: Step) -> list[View]:
    """What the call could have changed: everything named in it, and all sums."""
    accounts, orders, leases = {step.by}, [], []
    stack = list(step.arguments)
    while stack:
        value = stack.pop()
        if isinstance(value, Order):
            orders.append(value)
            accounts |= {value.payer, value.signer}
        elif isinstance(value, Lease):
            leases.append(value)
            accounts.add(value.worker)
        elif isinstance(value, list | tuple):
            stack.extend(value)
        elif hasattr(value, "auditor"):
            accounts.add(value.auditor)
        elif isinstance(value, bytes) and len(value) == 20:
            accounts.add(value)
    quarrels = of_quarrels(scene, [one for one in step.arguments if isinstance(one, bytes) and len(one) == 32])
    seats = [*of_seats(scene, leases), *of_slots(scene, step.block, 2)]
    periods = of_periods(scene, accounts, 2)
    return [*of_all(scene), *of_accounts(accounts), *periods, *of_jobs(scene, orders), *seats, *quarrels]


def everything(scene: Scene) -> list[View]:
    count = scene.world.registry.slot_count()
    contracts = list(scene.world.contracts.values())
    accounts = [*scene.keys, *(contract.address for contract in contracts)]
    return [
        *of_all(scene),
        *of_accounts(accounts),
        *(View("Registry", name, (account,)) for account in accounts for name in (
            "classOf", "ownerOf", "proposedOwnerOf", "peerOf", "withdrawable", "liveSlots", "depositOf", "debtOf",
            "newcomerOf", "nonceOf",
        )),
        *(View("Token", "nonces", (account,)) for account in accounts),
        *(View("Token", "allowance", (account, to.address)) for account in accounts for to in contracts),
        View("Registry", "slotsFrom", (max(0, count - 40), 60)),
        View("Registry", "slotsFrom", (0, 7)),
        *of_slots(scene, scene.block, 40),
        *of_periods(scene, accounts, 6),
        *of_jobs(scene, scene.orders),
        *of_seats(scene, [held.lease for held in scene.leases]),
        *of_quarrels(scene, [*scene.cases[-40:], *(one.id for one in scene.claims[-20:])]),
    ]  # fmt: skip


def of_all(scene: Scene) -> list[View]:
    contracts = scene.world.contracts.values()
    return [
        *(View("Token", "balanceOf", (contract.address,)) for contract in contracts),
        View("Token", "totalSupply", ()),
        View("JobEscrow", "feesToBurn", ()),
        View("Registry", "slotCount", ()),
        View("Court", "pool", ()),
        View("Court", "owed", ()),
    ]


def of_slots(scene: Scene, block: int, newest: int) -> list[View]:
    """Whom they draw in this block and in the one before: what was added or released in one counts from there on."""
    count = scene.world.registry.slot_count()
    numbers = range(max(0, count - newest), count)
    return [View("Registry", "drawn", (number, at)) for number in numbers for at in (block - 1, block)]


def of_accounts(accounts: Iterable[bytes]) -> list[View]:
    names = (
        ("Token", "balanceOf"), ("JobEscrow", "creditOf"), ("Registry", "stakeOf"), ("Court", "creditOf"),
        ("Claims", "creditOf"), ("Accusations", "creditOf"),
    )  # fmt: skip
    return [View(contract, name, (account,)) for account in sorted(accounts) for contract, name in names]


def of_periods(scene: Scene, accounts: Iterable[bytes], last: int) -> list[View]:
    """What was burned in the running period and the ones before, and what is rewarded for it."""
    running = scene.now // scene.world.escrow.period_length
    periods = range(max(0, running - last + 1), running + 1)
    return [
        *(View("JobEscrow", "burnedIn", (period,)) for period in periods),
        *(
            View(contract, name, arguments)
            for period in periods
            for account in sorted(accounts)
            for contract, name, arguments in (
                ("JobEscrow", "burnedOf", (period, account)), ("Rewards", "rewardOf", (account, period)),
                ("Rewards", "collected", (account, period)),
            )
        ),
    ]  # fmt: skip


def of_jobs(scene: Scene, orders: Iterable[Order]) -> list[View]:
    escrow = scene.world.escrow
    return [
        view
        for order in orders
        for view in (
            View("JobEscrow", "jobOf", (escrow.job_id_of(order),)),
            View("JobEscrow", "refundable", (order,)),
        )
    ]


def of_seats(scene: Scene, leases: Iterable[Lease]) -> list[View]:
    seat_id_of = scene.world.escrow.seat_id_of
    return [
        view
        for lease in leases
        for view in (View("JobEscrow", "seatOf", (seat_id_of(lease),)), View("JobEscrow", "lockLeft", (lease,)))
    ]


def of_quarrels(scene: Scene, ids: Iterable[bytes]) -> list[View]:
    """Of claims, accusations and cases: an id of one is none of another, and zero there on both sides."""
    views = []
    for id_ in dict.fromkeys(ids):
        case, claim = scene.world.court.case_of(id_), scene.world.claims.claim_of(id_)
        names = (
            ("Claims", "claimOf"), ("Claims", "rootOf"), ("Accusations", "accusationOf"), ("Court", "caseOf"),
            ("Court", "partiesOf"),
        )  # fmt: skip
        views += [View(contract, name, (id_,)) for contract, name in names]
        views += [View("Claims", "sampleOf", (id_, sample)) for sample in range(claim.k)]
        if claim.k:
            seat = (("Claims", "quarrelsOf"), ("Claims", "unchallenged"), ("Accusations", "blocking"))
            views += [View(contract, name, (claim.seat,)) for contract, name in seat]
        if claim.sampled_at:
            views.append(View("Claims", "unitsOf", (id_,)))
            views += [View("Claims", "auditorAt", (id_, sample, 0)) for sample in range(claim.k)]
        views += [
            View("Court", "ballotOf", (id_, case.round, member)) for member in range(5 if case.seed != ZERO_WORD else 0)
        ]
        views += [View("Court", "memberAt", (id_, member)) for member in range(2 if case.seed != ZERO_WORD else 0)]
    return views
