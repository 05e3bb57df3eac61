"""One episode: a fresh pair of sides, some hundred calls made up from a seed, compared after each; and its shrinking.

The calls of an episode follow from its seed and the model alone. So a divergence is replayed by its seed, and the
shortest part of it that still diverges by the numbers of its calls.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from judge import acts_escrow as escrow
from judge import acts_stake as stake
from judge.scene import ROLES, Scene
from judge.sides import Divergence, Model, Modelled, Pair, Step, View, addresses_of
from tallymesh.messages import Lease, Order
from tallymesh.parameters import Parameters

CALLS = 300  # of one episode: deep enough for every window to pass, short enough to shrink
SWEEP_EVERY = 50  # calls: then every view of everything is compared
TRIES = 20  # for something to do, before time passes instead
MOMENTS = 0.2  # share of the calls that are made when a deadline passes
REVERTS_MAX = 0.4  # of all calls of a kind

Act = Callable[[Scene], Step | None]
# (weight, act): the deep ones often
ACTS: tuple[tuple[int, Act], ...] = (
    (1, stake.transfer), (1, stake.approve), (1, stake.transfer_from), (1, stake.burn), (1, stake.permit),
    (1, stake.bind), (1, stake.propose_owner), (2, stake.accept_owner), (1, stake.set_class), (2, stake.buy_slots),
    (2, stake.release_slots), (2, stake.withdraw), (1, stake.forbidden),
    (5, escrow.open_job), (8, escrow.seat), (10, escrow.settle), (8, escrow.pay_audits), (4, escrow.close),
    (3, escrow.expire), (4, escrow.unlock), (3, escrow.refund), (4, escrow.finish), (3, escrow.withdraw),
    (1, escrow.burn_fees),
)  # fmt: skip
STATES: dict[str, tuple[str, ...]] = {
    **{f"Token.{name}": ("-",) for name in ("transfer", "approve", "transferFrom", "burnFrom", "burn", "permit")},
    **{f"Registry.{name}": stake.STATES_OF_OWNER for name in ("bind", "proposeOwner", "acceptOwner")},
    **{
        f"Registry.{name}": stake.STATES_OF_STAKE
        for name in (
            "setClass", "buySlots", "buySlotsWithPermit", "releaseSlots", "withdraw", "tryLock", "unlock",
        )
    },
    **{
        f"JobEscrow.{name}": escrow.STATES_OF_JOB for name in ("open", "openWithPermit", "seat", "refund", "finish")
    },
    **{
        f"JobEscrow.{name}": escrow.STATES_OF_SEAT for name in ("settle", "payAudits", "close", "expire", "unlock")
    },
    "JobEscrow.withdraw": ("none", "credit"),
    "JobEscrow.burnFees": ("none", "fees"),
}  # fmt: skip
CELLS = {(call, state, role) for call, states in STATES.items() for state in states for role in ROLES}


class Tally(msgspec.Struct):
    """What a run did, so far."""

    calls: int = 0
    views: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    reverts: Counter[str] = msgspec.field(default_factory=Counter)
    events: Counter[str] = msgspec.field(default_factory=Counter)
    cells: set[tuple[str, str, str]] = msgspec.field(default_factory=set)


class Found(Exception):
    """A divergence, with the calls up to it."""

    def __init__(self, steps: Sequence[Step], text: str) -> None:
        self.steps = list(steps)
        self.text = text
        super().__init__(text)


def parameters_of(rng: random.Random) -> Parameters:
    """Windows of minutes, so that an episode outlives them; now and then the numbers at which rounding shows."""
    return Parameters(
        slot_wei=rng.choice([1_000 * 10**18, 1_000 * 10**18, 997, 1]), unbonding_s=rng.choice([500, 700, 0]),
        lock_tail_s=rng.choice([120, 90, 0]), class_delay_s=rng.choice([60, 1, 0]),
        claim_window_s=rng.choice([100, 40]), evidence_window_s=rng.choice([150, 60]),
        fee_bp=rng.choice([200, 200, 333, 0, 9_999]), lease_max_s=rng.choice([1_000, 172_800]),
    )  # fmt: skip


def run(seed: str, modules: Modelled, bytecode: Mapping[str, bytes], tally: Tally, calls: int = CALLS) -> None:
    """Raises Found at the first divergence."""
    rng = random.Random(seed)
    parameters = parameters_of(rng)
    pair = Pair(parameters, modules, bytecode)
    scene = Scene(rng, pair.model, parameters)
    steps: list[Step] = []
    pending = stake.beginning(scene)
    while len(steps) < calls:
        step = pending.pop(0) if pending else choose(scene)
        steps.append(step)
        views = touched(scene, step) if len(steps) % SWEEP_EVERY and len(steps) < calls else everything(scene)
        try:
            seen = pair.step(step, views)
        except Divergence as divergence:
            raise Found(steps, str(divergence)) from None
        tally.calls += 1
        tally.views += len(views)
        tally.kinds[step.kind] += 1
        if not seen.ok:
            tally.reverts[step.kind] += 1
        name = f"{step.contract}.{step.function}"
        tally.cells.add((name, step.state, step.role))


def choose(scene: Scene) -> Step:
    scene.pass_time()
    weights = [weight for weight, _ in ACTS]
    for _ in range(TRIES):
        scene.model.at(scene.now, scene.block)
        act = Scene.moment if scene.chance(MOMENTS) else scene.rng.choices(ACTS, weights)[0][1]
        step = act(scene)
        if step is not None:
            return step
    return stake.transfer(scene)


# ---- what is compared


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
    return [*of_all(scene), *of_accounts(accounts), *of_jobs(scene, orders), *of_seats(scene, leases)]


def everything(scene: Scene) -> list[View]:
    count = scene.world.registry.slot_count()
    contracts = list(scene.world.contracts.values())
    accounts = [*scene.keys, *(contract.address for contract in contracts)]
    return [
        *of_all(scene),
        *of_accounts(accounts),
        *(View("Registry", name, (account,)) for account in accounts for name in (
            "classOf", "ownerOf", "proposedOwnerOf", "peerOf", "withdrawable", "liveSlots",
        )),
        *(View("Token", "nonces", (account,)) for account in accounts),
        *(View("Token", "allowance", (account, to.address)) for account in accounts for to in contracts),
        View("Registry", "slotsFrom", (max(0, count - 40), 60)),
        View("Registry", "slotsFrom", (0, 7)),
        *of_jobs(scene, scene.orders),
        *of_seats(scene, [held.lease for held in scene.leases]),
    ]  # fmt: skip


def of_all(scene: Scene) -> list[View]:
    contracts = scene.world.contracts.values()
    return [
        *(View("Token", "balanceOf", (contract.address,)) for contract in contracts),
        View("Token", "totalSupply", ()),
        View("JobEscrow", "feesToBurn", ()),
        View("Registry", "slotCount", ()),
    ]


def of_accounts(accounts: Iterable[bytes]) -> list[View]:
    names = (("Token", "balanceOf"), ("JobEscrow", "creditOf"), ("Registry", "stakeOf"))
    return [View(contract, name, (account,)) for account in sorted(accounts) for contract, name in names]


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
    return [View("JobEscrow", "seatOf", (scene.world.escrow.seat_id_of(lease),)) for lease in leases]


# ---- shrinking


def diverges(seed: str, modules: Modelled, bytecode: Mapping[str, bytes], steps: Sequence[Step]) -> str:
    """How these calls, after the deployment of the episode `seed`, make the sides differ; empty where they do not."""
    parameters = parameters_of(random.Random(seed))
    pair = Pair(parameters, modules, bytecode)
    scene = Scene(random.Random(0), pair.model, parameters)
    for step in steps:
        scene.orders += [value for value in step.arguments if isinstance(value, Order)]
        try:
            pair.step(step, touched(scene, step))
        except Divergence as divergence:
            return str(divergence)
    return ""


def shrunk(seed: str, modules: Modelled, bytecode: Mapping[str, bytes], steps: Sequence[Step]) -> list[int]:
    """Numbers of the fewest calls found that still end in a divergence: parts are left out, larger ones first."""
    kept = list(range(len(steps)))
    size = len(kept) // 2
    while size:
        at = 0
        while at < len(kept) - 1:
            rest = kept[:at] + kept[min(at + size, len(kept) - 1) :]
            if diverges(seed, modules, bytecode, [steps[i] for i in rest]):
                kept = rest
            else:
                at += size
        size //= 2
    return kept


def made_up(seed: str, modules: Modelled, calls: int = CALLS) -> list[Step]:
    """The calls of an episode without the contracts: for a replay."""
    rng = random.Random(seed)
    parameters = parameters_of(rng)
    model = Model(parameters, addresses_of(), modules)
    scene = Scene(rng, model, parameters)
    steps: list[Step] = []
    pending = stake.beginning(scene)
    while len(steps) < calls:
        step = pending.pop(0) if pending else choose(scene)
        model.at(step.now, step.block)
        model.call(step)
        steps.append(step)
    return steps


def too_many_reverts(tally: Tally, least: int = 50) -> list[str]:
    """Kinds of calls that mostly failed: what looks like a test of them would be one of their refusals only."""
    return [
        f"{kind}: {tally.reverts[kind]} of {count} reverted"
        for kind, count in sorted(tally.kinds.items())
        if count >= least and kind != stake.FORBIDDEN and tally.reverts[kind] > REVERTS_MAX * count
    ]
