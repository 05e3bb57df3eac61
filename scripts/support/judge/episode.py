"""One episode: a fresh pair of sides, some hundred calls made up from a seed, compared after each; and its shrinking.

The calls of an episode follow from its seed and the model alone. So a divergence is replayed by its seed, and the
shortest part of it that still diverges by the numbers of its calls.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from judge import acts_accusations as accusations
from judge import acts_claims as claims
from judge import acts_court as court
from judge import acts_credit as credit
from judge import acts_escrow as escrow
from judge import acts_stake as stake
from judge.scene import ROLES, Scene
from judge.sides import DEPLOYED, Divergence, Model, Modelled, Pair, Step, Terms, addresses_of, reason
from judge.views import everything, known, touched
from tallymesh.messages import Lease, Order
from tallymesh.parameters import Parameters
from tallymesh_ledger.model.panels import CourtTerms
from tallymesh_ledger.model.rulings import ClaimTerms
from tallymesh_ledger.model.world import Quarrelling

CALLS = 500  # of one episode: deep enough for every window to pass, short enough to shrink
SWEEP_EVERY = 50  # calls: then every view of everything is compared
TRIES = 20  # for something to do, before time passes instead
MOMENTS = 0.2  # share of the calls that are made when a deadline passes
REVERTS_MAX = 0.4  # of all calls of a kind
AGAIN = "again"  # earlier calls once more: most of them are refused, and that is what they are for

Act = Callable[[Scene], Step | None]
# (weight, act): the deep ones often
ACTS: tuple[tuple[int, Act], ...] = (
    (1, stake.transfer), (1, stake.approve), (1, stake.transfer_from), (1, stake.burn), (1, stake.permit),
    (1, stake.bind), (1, stake.propose_owner), (2, stake.accept_owner), (1, stake.set_class), (2, stake.buy_slots),
    (2, stake.release_slots), (2, stake.withdraw), (1, stake.forbidden),
    (5, escrow.open_job), (8, escrow.seat), (10, escrow.settle), (8, escrow.pay_audits), (4, escrow.close),
    (3, escrow.expire), (4, escrow.unlock), (3, escrow.refund), (4, escrow.finish),
    (3, credit.withdraw), (1, credit.withdraw_court), (1, credit.withdraw_claims), (1, credit.withdraw_accusations),
    (1, credit.burn_fees), (1, credit.burn_pool), (2, credit.bond_for), (2, credit.withdraw_for),
    (1, credit.release_deposit), (2, credit.settle_debt), (2, credit.collect),
    (5, claims.claim), (22, claims.on_claim), (20, court.on_case),
    (4, accusations.accuse), (3, accusations.acquit_or_convict), (1, accusations.fraud),
    (8, lambda scene: again(scene)),
)  # fmt: skip
# what happens more often where people quarrel
QUARRELS: dict[Act, int] = {
    claims.claim: 14, claims.on_claim: 45, accusations.accuse: 5, accusations.acquit_or_convict: 5, court.on_case: 45,
    escrow.settle: 3, escrow.pay_audits: 1, escrow.close: 1, escrow.expire: 1, escrow.finish: 2, escrow.refund: 1,
    escrow.unlock: 1,
}  # fmt: skip
STATES: dict[str, tuple[str, ...]] = {
    **{f"Token.{name}": ("-",) for name in ("transfer", "approve", "transferFrom", "burnFrom", "burn", "permit")},
    **{f"Registry.{name}": stake.STATES_OF_OWNER for name in ("bind", "proposeOwner", "acceptOwner")},
    **{
        f"Registry.{name}": stake.STATES_OF_STAKE
        for name in (
            "setClass", "buySlots", "buySlotsWithPermit", "releaseSlots", "releaseDeposit", "settleDebt", "withdraw",
            "bondFor", "withdrawFor", "tryLock", "unlock",
        )
    },
    **{
        f"JobEscrow.{name}": escrow.STATES_OF_JOB for name in ("open", "openWithPermit", "seat", "refund", "finish")
    },
    **{
        f"JobEscrow.{name}": escrow.STATES_OF_SEAT for name in ("settle", "payAudits", "close", "expire", "unlock")
    },
    **{f"{name}.withdraw": credit.STATES_OF_CREDIT for name in ("JobEscrow", "Court", "Claims", "Accusations")},
    "JobEscrow.burnFees": credit.STATES_OF_CREDIT,
    "Court.burnPool": credit.STATES_OF_CREDIT,
    "Rewards.collect": credit.STATES_OF_REWARD,
    "Claims.claim": escrow.STATES_OF_SEAT,
    **{
        f"Claims.{name}": claims.STATES_OF_CLAIM for name in ("capture", "commit", "open", "reveal", "rule", "conclude")
    },
    **{f"Accusations.{name}": escrow.STATES_OF_SEAT for name in ("accuse", "acquitOrConvict", "fraud")},
    **{
        f"Court.{name}": court.STATES_OF_CASE
        for name in ("post", "answer", "advance", "commit", "reveal", "appeal")
    },
}  # fmt: skip
CELLS = {(call, state, role) for call, states in STATES.items() for state in states for role in ROLES}


class Tally(msgspec.Struct):
    """What a run did, so far."""

    calls: int = 0
    views: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    reverts: Counter[str] = msgspec.field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    cells: set[tuple[str, str, str]] = msgspec.field(default_factory=set)


class Found(Exception):
    """A divergence, with the calls up to it."""

    def __init__(self, steps: Sequence[Step], text: str) -> None:
        self.steps = list(steps)
        self.text = text
        super().__init__(text)


def terms_of(rng: random.Random) -> Terms:
    """Windows of minutes, so that an episode outlives them; now and then the numbers at which rounding shows."""
    parameters = Parameters(
        slot_wei=rng.choice([1_000 * 10**18, 1_000 * 10**18, 50 * 10**18 + 7]), unbonding_s=rng.choice([500, 700, 0]),
        lock_tail_s=rng.choice([120, 90, 0]), class_delay_s=rng.choice([60, 1, 0]),
        claim_window_s=rng.choice([100, 40]), evidence_window_s=rng.choice([150, 60]),
        fee_bp=rng.choice([200, 200, 333, 0, 9_999]), lease_max_s=rng.choice([1_000, 172_800]),
    )  # fmt: skip
    trial = CourtTerms(
        quorum=rng.choice([1, 1, 2, 3]), panel=rng.choice([3, 3, 4]), appeal_panel=5,
        member_fee=rng.choice([1, 7, 10**15]), move_window=60, commit_window=90, reveal_window=80, appeal_window=70,
    )  # fmt: skip
    audits = ClaimTerms(commit_window=50, open_window=90, reveal_window=100, challenge_window=80)
    emission = rng.choice([10**18, 3, 10**30])
    return Terms(parameters, Quarrelling(trial, audits, rng.choice([500, 1, 86_400]), emission))


def run(seed: str, modules: Modelled, bytecode: Mapping[str, bytes], tally: Tally, calls: int = CALLS) -> None:
    """Raises Found at the first divergence."""
    rng = random.Random(seed)
    terms = terms_of(rng)
    pair = Pair(terms, modules, bytecode)
    scene = Scene(rng, pair.model, terms)
    steps: list[Step] = []
    pending = stake.beginning(scene)
    while len(steps) < calls:
        step = pending.pop(0) if pending else choose(scene)
        steps.append(step)
        views = known(touched(scene, step) if len(steps) % SWEEP_EVERY and len(steps) < calls else everything(scene))
        try:
            seen = pair.step(step, views)
        except Divergence as divergence:
            raise Found(steps, str(divergence)) from None
        tally.calls += 1
        tally.views += len(views)
        tally.kinds[step.kind] += 1
        if not seen.ok:
            tally.reverts[step.kind] += 1
            tally.reasons[step.kind, reason(seen.data)] += 1
        name = f"{step.contract}.{step.function}"
        tally.cells.add((name, step.state, step.role))


def possible(act: Act) -> bool:
    """Whether the contracts that it calls have bytecode."""
    return "Court" in DEPLOYED or act.__module__ not in (accusations.__name__, claims.__name__, court.__name__)


def again(scene: Scene) -> Step | None:
    """An earlier call with the same arguments, by anybody, in whatever state things are now."""
    name = scene.one(sorted(scene.past))
    contract, function = name.split(".")
    arguments = scene.one(scene.past[name])
    arguments = other(scene, contract, arguments) if scene.chance(0.6) else arguments
    state = state_of(scene, name, arguments)
    return scene.step(scene.anyone(), contract, function, *arguments, kind=AGAIN, state=state)


def other(scene: Scene, contract: str, arguments: tuple[object, ...]) -> tuple[object, ...]:
    """The same about another claim, case or seat; or about one that never was."""
    first, *rest = arguments or (b"",)
    if scene.chance(0.2):
        if isinstance(first, bytes) and len(first) == 32:
            return (scene.rng.randbytes(32), *rest)
        return tuple(replace(one, nonce=0) if isinstance(one, Lease) else one for one in arguments)
    if contract == "Court" and scene.cases and isinstance(first, bytes) and len(first) == 32:
        return (scene.one(scene.cases[-8:]), *rest)
    if contract == "Claims" and scene.claims:
        one = scene.one(scene.claims[-8:])
        if isinstance(first, bytes) and len(first) == 32:
            return (one.id, *rest)
        if isinstance(first, Lease):
            return (one.held.lease, one.id, *rest[1:])
    return arguments


def state_of(scene: Scene, name: str, arguments: Sequence[object]) -> str:
    """Of what the call is about, in the words of STATES."""
    flat = list(_flat(arguments))
    states = STATES.get(name, ())
    if states == escrow.STATES_OF_JOB:
        return escrow.job_state(scene, next(one for one in flat if isinstance(one, Order)))
    if states == escrow.STATES_OF_SEAT:
        lease = next((one for one in flat if isinstance(one, Lease)), None)
        return escrow.state_of_lease(scene, lease) if lease else "none"
    first = next((one for one in flat if isinstance(one, bytes)), b"")
    if states == stake.STATES_OF_STAKE:
        account = next((one.account for one in flat if hasattr(one, "account")), first)
        return stake.stake_state(scene, account if len(account) == 20 else scene.anyone())
    if states == stake.STATES_OF_OWNER:
        return stake.owner_state(scene, next((one.account for one in flat if hasattr(one, "account")), first))
    if states == claims.STATES_OF_CLAIM:
        return claims.claim_state(scene, next(one for one in flat if isinstance(one, bytes) and len(one) == 32))
    if states == court.STATES_OF_CASE:
        return court.case_state(scene, first)
    return states[0] if states else "-"


def _flat(values: Iterable[object]) -> Iterable[object]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def choose(scene: Scene) -> Step:
    scene.pass_time()
    more = QUARRELS if scene.quarrelsome else {}
    weights = [more.get(act, weight) if possible(act) else 0 for weight, act in ACTS]
    moments = MOMENTS / 3 if scene.quarrelsome else MOMENTS
    for _ in range(TRIES):
        scene.model.at(scene.now, scene.block)
        act = Scene.moment if scene.chance(moments) else scene.rng.choices(ACTS, weights)[0][1]
        step = act(scene)
        if step is not None:
            return step
    return stake.transfer(scene)


# ---- shrinking


def diverges(seed: str, modules: Modelled, bytecode: Mapping[str, bytes], steps: Sequence[Step]) -> str:
    """How these calls, after the deployment of the episode `seed`, make the sides differ; empty where they do not."""
    terms = terms_of(random.Random(seed))
    pair = Pair(terms, modules, bytecode)
    scene = Scene(random.Random(0), pair.model, terms)
    for step in steps:
        scene.orders += [value for value in step.arguments if isinstance(value, Order)]
        try:
            pair.step(step, known(touched(scene, step)))
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
    terms = terms_of(rng)
    model = Model(*terms, addresses_of(), modules)
    scene = Scene(rng, model, terms)
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
        if count >= least and kind not in (stake.FORBIDDEN, AGAIN) and tally.reverts[kind] > REVERTS_MAX * count
    ]
