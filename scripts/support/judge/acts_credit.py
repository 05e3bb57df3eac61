"""Random calls by which credit becomes stake or leaves: relayed requests, deposits, debts, rewards, all withdrawals."""

from __future__ import annotations

from typing import Any

from judge.acts_stake import stake_state
from judge.scene import KEYS, Scene
from judge.sides import Step
from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh_ledger.model.signatures import NONE, Signature

STATES_OF_CREDIT = ("none", "credit")
STATES_OF_REWARD = ("running", "due", "none")
ALL = 2**96 - 1


def credit_state(scene: Scene, contract: str, account: bytes) -> str:
    return "credit" if scene.world.contracts[contract].credit_of(account) else "none"


def withdraw_from(contract: str, scene: Scene) -> Step | None:
    ready = [account for account in scene.keys if scene.world.contracts[contract].credit_of(account)]
    if contract == "JobEscrow" and scene.world.escrow.credit_of(scene.world.court.address):
        ready.append(scene.world.court.address)  # the court's half of the fees
    if not ready and not scene.chance(0.03):
        return None
    account = scene.one(ready) if ready and scene.chance(0.95) else scene.anyone()
    return scene.step(scene.anyone(), contract, "withdraw", account, state=credit_state(scene, contract, account))


def withdraw(scene: Scene) -> Step | None:
    return withdraw_from("JobEscrow", scene)


def withdraw_court(scene: Scene) -> Step | None:
    return withdraw_from("Court", scene)


def withdraw_claims(scene: Scene) -> Step | None:
    return withdraw_from("Claims", scene)


def withdraw_accusations(scene: Scene) -> Step | None:
    return withdraw_from("Accusations", scene)


def burn_fees(scene: Scene) -> Step | None:
    fees = scene.world.escrow.fees_to_burn()
    if not fees and not scene.chance(0.1):
        return None
    return scene.step(scene.anyone(), "JobEscrow", "burnFees", state="credit" if fees else "none")


def burn_pool(scene: Scene) -> Step | None:
    pool = scene.world.court.pool()
    if not pool and not scene.chance(0.05):
        return None
    return scene.step(scene.anyone(), "Court", "burnPool", state="credit" if pool else "none")


# ---- carried by anybody


def asked(scene: Scene, account: bytes) -> tuple[dict[str, Any], bytes]:
    """What both requests have in common, and who carries it."""
    nonce = scene.world.registry.nonce_of(account)
    credit = scene.world.escrow.credit_of(account)
    fee = scene.one([0, 0, credit // 10, credit if scene.chance(0.2) else 0, credit + 1 if scene.chance(0.1) else 1])
    if fee > credit and scene.chance(0.9):
        fee = 0
    nonce = scene.one([nonce + 1, max(0, nonce - 1)]) if scene.chance(0.07) else nonce
    deadline = scene.now - 1 if scene.chance(0.05) else scene.now + scene.one([0, 10, 100])
    owner = scene.world.registry.owner_of(account)
    by = owner if owner in scene.keys and scene.chance(0.3) else scene.anyone()
    return {"account": account, "fee": min(fee, ALL), "nonce": nonce, "deadline": deadline}, by


def sign_request(scene: Scene, by: bytes, request: RelayedBond | RelayedWithdraw) -> Signature:
    owner = scene.world.registry.owner_of(request.account)
    if by == owner and scene.chance(0.5):
        return NONE
    key = scene.keys.get(owner) or scene.key()
    return scene.sign(key, scene.world.registry.domain, request)


def rich(scene: Scene) -> bytes:
    ready = [account for account in scene.keys if scene.world.escrow.credit_of(account)]
    return scene.one(ready) if ready and scene.chance(0.9) else scene.anyone()


def bond_for(scene: Scene) -> Step:
    account = rich(scene)
    common, by = asked(scene, account)
    left = max(0, scene.world.escrow.credit_of(account) - common["fee"])
    amount = scene.one([ALL, left, left // 2, left, left + 1 if scene.chance(0.3) else left])
    request = scene.bent(RelayedBond(amount=min(amount, ALL), **common), often=0.03)
    signature = sign_request(scene, by, request)
    return scene.step(by, "Registry", "bondFor", request, signature, state=stake_state(scene, account))


def withdraw_for(scene: Scene) -> Step:
    account = rich(scene)
    registry = scene.world.registry
    common, by = asked(scene, account)
    live = [n for n in range(registry.slot_count()) if registry.slot_at(n).account == account]
    live = [n for n in live if not registry.slot_at(n).released_block]
    named = live[: scene.one([0, 0, 1, 2])]
    if scene.chance(0.05):
        named = [*named, scene.rng.randrange(registry.slot_count() + 1)]
    asked_for = len(named) if scene.chance(0.95) else len(named) + 1
    deposit = registry.deposit_of(account) > 0 and scene.chance(0.6)
    request = RelayedWithdraw(slots=asked_for, deposit=deposit or scene.chance(0.03), **common)
    signature = sign_request(scene, by, request)
    if named or deposit:
        at = scene.now + scene.parameters.unbonding_s
        scene.expect(at, lambda: scene.step(scene.anyone(), "Registry", "withdraw", account))
    return scene.step(by, "Registry", "withdrawFor", request, named, signature, state=stake_state(scene, account))


# ---- deposits and debts


def release_deposit(scene: Scene) -> Step | None:
    registry = scene.world.registry
    ready = [account for account in scene.keys if registry.deposit_of(account)]
    if not ready and not scene.chance(0.1):
        return None
    account = scene.one(ready) if ready and scene.chance(0.95) else scene.anyone()
    by = scene.one([account, registry.owner_of(account)]) if scene.chance(0.93) else scene.anyone()
    return scene.step(by, "Registry", "releaseDeposit", account, state=stake_state(scene, account))


def settle_debt(scene: Scene) -> Step | None:
    registry = scene.world.registry
    ready = [account for account in scene.keys if registry.debt_of(account)]
    if not ready and not scene.chance(0.02):
        return None
    account = scene.one(ready) if ready and scene.chance(0.95) else scene.anyone()
    mine = [n for n in range(registry.slot_count()) if registry.slot_at(n).account == account]
    live = [n for n in mine if not registry.slot_at(n).released_block]
    slots = live[: scene.one([1, 1, 1, 2])]
    if scene.chance(0.1):
        slots = scene.one([[], mine[:1], [0]])
    return scene.step(scene.anyone(), "Registry", "settleDebt", account, slots, state=stake_state(scene, account))


# ---- rewards


def collect(scene: Scene) -> Step | None:
    escrow = scene.world.escrow
    period = scene.now // escrow.period_length - scene.one([0, 1, 1, 1, 2, 3])
    for back in range(12):  # the newest period in which somebody was paid
        if escrow.burned_in(period - back) and scene.chance(0.8):
            period -= back
            break
    due = [key.address for key in KEYS["worker"] if scene.world.rewards.reward_of(key.address, period)]
    if not due and not scene.chance(0.02):
        return None
    worker = scene.one(due) if due and scene.chance(0.95) else scene.anyone()
    running = period >= scene.now // escrow.period_length
    state = "running" if running else "due" if scene.world.rewards.reward_of(worker, period) else "none"
    return scene.step(scene.anyone(), "Rewards", "collect", worker, period, state=state)
