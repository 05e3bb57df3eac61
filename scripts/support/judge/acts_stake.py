"""Random calls of Token and Registry. Each returns a Step, or None where there is nothing to try just now."""

from __future__ import annotations

from judge.scene import CURVE, KEYS, Scene
from judge.sides import HOLDER, Step
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.messages import PeerBinding
from tallymesh_ledger.model.token import Permit

FORBIDDEN = "forbidden"  # calls that nobody may make: all of them revert
CLASS = b"\x0a" * 32  # in which nearly all compute
STATES_OF_STAKE = ("none", "live", "locked", "unbonding", "withdrawable")
STATES_OF_OWNER = ("own", "proposed", "owned")


def beginning(scene: Scene) -> list[Step]:
    """Tokens for most, allowances, and stake for the workers and auditors, as a network has it."""
    p, addresses = scene.parameters, scene.model.world.contracts
    steps = []
    for role in KEYS:
        for key in KEYS[role]:
            amount = 40 * p.slot_wei + 1_000 * WEI_PER_TOKEN
            steps.append(scene.step(HOLDER, "Token", "transfer", key.address, amount, kind="set-up"))
            for name in ("Registry", "JobEscrow", "Claims", "Accusations", "Court"):
                allowed = 2**256 - 1 if scene.chance(0.7) else amount
                spender = addresses[name].address
                steps.append(scene.step(key.address, "Token", "approve", spender, allowed, kind="set-up"))
    endowment = scene.one([0, 10**6, 10**24])
    steps.append(scene.step(HOLDER, "Token", "transfer", addresses["Rewards"].address, endowment, kind="set-up"))
    for key in KEYS["worker"] + KEYS["auditor"]:
        steps.append(scene.step(key.address, "Registry", "setClass", CLASS, kind="set-up"))
        if scene.chance(0.8):
            count = scene.one([1, 1, 2, 3])
            steps.append(scene.step(key.address, "Registry", "buySlots", key.address, count, kind="set-up"))
    return steps


def stake_state(scene: Scene, account: bytes) -> str:
    registry = scene.world.registry
    free, locked, unbonding = registry.stake_of(account)
    if registry.withdrawable(account):
        return "withdrawable"
    return "locked" if locked else "unbonding" if unbonding else "live" if free else "none"


def owner_state(scene: Scene, account: bytes) -> str:
    registry = scene.world.registry
    if registry.proposed_owner_of(account) != bytes(20):
        return "proposed"
    return "own" if registry.owner_of(account) == account else "owned"


# ---- token


def transfer(scene: Scene) -> Step:
    by = scene.anyone()
    balance = scene.world.token.balance_of(by)
    value = scene.one([0, 1, balance // 1000, balance // 1000, balance // 10])
    value = scene.one([balance, balance + 1]) if scene.chance(0.06) else value
    to = bytes(20) if scene.chance(0.03) else scene.anyone()
    return scene.step(by, "Token", "transfer", to, value)


def approve(scene: Scene) -> Step:
    names = list(scene.world.contracts)
    spender = scene.world.contracts[scene.one(names)].address if scene.chance(0.7) else scene.anyone()
    spender = bytes(20) if scene.chance(0.04) else spender
    unlimited = 2**256 - 1
    few = scene.number() if spender in scene.keys or scene.chance(0.3) else unlimited
    value = scene.one([unlimited, unlimited, unlimited, 10**24, few])
    return scene.step(scene.anyone(), "Token", "approve", spender, value)


def transfer_from(scene: Scene) -> Step:
    owner, by = scene.anyone(), scene.anyone()
    token = scene.world.token
    allowed = min(token.allowance(owner, by), token.balance_of(owner))
    value = scene.one([allowed, allowed // 2, 0, allowed + 1 if scene.chance(0.5) else allowed])
    to = bytes(20) if scene.chance(0.03) else scene.anyone()
    function, arguments = ("transferFrom", (owner, to, value)) if scene.chance(0.7) else ("burnFrom", (owner, value))
    return scene.step(by, "Token", function, *arguments)


def burn(scene: Scene) -> Step:
    by = scene.anyone()
    balance = scene.world.token.balance_of(by)
    return scene.step(by, "Token", "burn", scene.one([0, 1, balance // 100, balance + 1]))


def permit_of(scene: Scene, owner: bytes, spender: bytes, value: int) -> Permit:
    """For the owner's next nonce; now and then broken, late or of somebody else."""
    key = scene.keys[owner if scene.chance(0.9) else scene.anyone()]
    deadline = scene.now + scene.one([0, 0, 1, 3600, 3600, -1])
    signed = key.sign_digest(scene.world.token.permit_digest(owner, spender, value, deadline))
    v, r, s = signed[64], signed[:32], signed[32:64]
    if scene.chance(0.08):
        v, s = scene.one([
            (55 - v, (CURVE - int.from_bytes(s, "big")).to_bytes(32, "big")), (0, s), (v, bytes(32)), (55 - v, s)
        ])  # fmt: skip
    return Permit(value, deadline, v, r, s)


def permit(scene: Scene) -> Step:
    owner = scene.anyone()
    spender = scene.one([scene.anyone(), scene.anyone(), scene.anyone(), scene.world.escrow.address])
    value = scene.one([scene.number(), 10**24])
    return scene.step(scene.anyone(), "Token", "permit", owner, spender, *permit_of(scene, owner, spender, value))


# ---- registry


def bind(scene: Scene) -> Step:
    key = scene.key()
    version = scene.world.registry.peer_of(key.address)[1]
    version = scene.one([version + 1, version + 1, version + 1, version + 2, version, 2**32 - 1]) & (2**32 - 1)
    binding = PeerBinding(peer_id_hash=scene.rng.randbytes(32), account=key.address, version=version)
    signature = scene.sign(key, scene.world.registry.domain, binding, honest=0.9)
    sent = scene.bent(binding, often=0.05)
    return scene.step(scene.anyone(), "Registry", "bind", sent, signature, state=owner_state(scene, key.address))


def propose_owner(scene: Scene) -> Step:
    account = scene.anyone()
    owner = scene.world.registry.owner_of(account)
    by = owner if scene.chance(0.85) else scene.anyone()
    following = bytes(20) if scene.chance(0.05) else scene.one([account, scene.anyone(), scene.anyone()])
    state = owner_state(scene, account)
    return scene.step(by, "Registry", "proposeOwner", account, following, state=state)


def accept_owner(scene: Scene) -> Step | None:
    registry = scene.world.registry
    waiting = [account for account in scene.keys if registry.proposed_owner_of(account) != bytes(20)]
    if waiting and scene.chance(0.95):
        account = scene.one(waiting)
        by = registry.proposed_owner_of(account) if scene.chance(0.9) else scene.anyone()
    elif scene.chance(0.1):
        account, by = scene.anyone(), scene.anyone()
    else:
        return None
    return scene.step(by, "Registry", "acceptOwner", account, state=owner_state(scene, account))


def set_class(scene: Scene) -> Step:
    by = scene.anyone()
    numeric_class = scene.one([CLASS, CLASS, CLASS, b"\x0b" * 32, bytes(32)])
    at = scene.now + scene.parameters.class_delay_s
    scene.expect(at, lambda: set_class_of(scene, by))
    return scene.step(by, "Registry", "setClass", numeric_class, state=stake_state(scene, by))


def set_class_of(scene: Scene, by: bytes) -> Step:
    return scene.step(by, "Registry", "setClass", CLASS, state=stake_state(scene, by))


def buy_slots(scene: Scene) -> Step:
    by = scene.key("worker", "auditor", "worker", "auditor", "stranger", "payer", "signer").address
    account = by if scene.chance(0.8) else scene.anyone()
    account = bytes(20) if scene.chance(0.02) else account
    count = scene.one([1, 1, 1, 2, 5, 0 if scene.chance(0.3) else 1, 30 if scene.chance(0.1) else 1])
    state = stake_state(scene, account)
    if scene.chance(0.6):
        return scene.step(by, "Registry", "buySlots", account, count, state=state)
    value = count * scene.parameters.slot_wei
    permit = permit_of(scene, by, scene.world.registry.address, value)
    return scene.step(by, "Registry", "buySlotsWithPermit", account, count, permit, state=state)


def release_slots(scene: Scene) -> Step | None:
    registry = scene.world.registry
    count = registry.slot_count()
    if not count:
        return None
    live = [slot for slot in range(count) if not registry.slot_at(slot).released_block]
    if not live:
        return None
    account = registry.slot_at(scene.one(live)).account
    mine = [slot for slot in live if registry.slot_at(slot).account == account]
    slots = scene.rng.sample(mine, scene.rng.randint(1, min(3, len(mine))))
    if scene.chance(0.1):
        slots = scene.one([[], [*slots, slots[0]], [scene.rng.randrange(count + 2)], [*slots, 2**256 - 1]])
    by = scene.one([account, registry.owner_of(account)]) if scene.chance(0.93) else scene.anyone()
    scene.expect(scene.now + scene.parameters.unbonding_s, lambda: withdraw_of(scene, account))
    return scene.step(by, "Registry", "releaseSlots", account, slots, state=stake_state(scene, account))


def withdraw(scene: Scene) -> Step | None:
    ready = [account for account in scene.keys if scene.world.registry.withdrawable(account)]
    if not ready and not scene.chance(0.15):
        return None
    return withdraw_of(scene, scene.one(ready) if ready and scene.chance(0.95) else scene.anyone())


def withdraw_of(scene: Scene, account: bytes) -> Step:
    return scene.step(scene.anyone(), "Registry", "withdraw", account, state=stake_state(scene, account))


def forbidden(scene: Scene) -> Step:
    """What only another contract may do. (No account can be the escrow: its own calls lead there.)"""
    account = scene.anyone()
    function, rest = scene.one([("tryLock", (0,)), ("tryLock", (2**96 - 1,)), ("unlock", (0,))])
    state = stake_state(scene, account)
    return scene.step(scene.anyone(), "Registry", function, account, *rest, kind=FORBIDDEN, state=state)
