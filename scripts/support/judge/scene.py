"""Who takes part and what they have signed so far: the memory from which random calls are made up.

Reads the model, never the contracts, so that the same seed gives the same calls whatever the contracts answer. Knows
the messages; which call is tried next is decided in acts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from judge.sides import BLOCK, HOLDER, START, Model, Step, Terms
from tallymesh import schema
from tallymesh.messages import Lease, Order
from tallymesh.schema import Message
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.eip712 import Domain
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.model.signatures import NONE, Signature, digest

T = TypeVar("T")
M = TypeVar("M", bound=Message)
ROLES = {"payer": 2, "signer": 2, "worker": 4, "auditor": 3, "stranger": 2}
CURVE = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FAR = 10_000_000  # seconds: a deadline beyond is a broken one; nobody waits for the year 36812
KEYS = {
    role: [AccountKey((1000 * i + n + 1).to_bytes(32, "big")) for n in range(count)]
    for i, (role, count) in enumerate(ROLES.items())
}


class Held(msgspec.Struct):
    """A lease that somebody signed; `order` is of its job."""

    lease: Lease
    order: Order
    id: bytes
    worker: AccountKey
    signer: AccountKey


class Moment(msgspec.Struct, frozen=True):
    """When a call begins, or ceases, to be possible."""

    at: int
    act: Callable[[], Step | None]


class Scene:
    """One episode: its accounts, its clock, its memory."""

    def __init__(self, rng: random.Random, model: Model, terms: Terms) -> None:
        self.rng = rng
        self.model = model
        self.world = model.world
        self.parameters = terms.parameters
        self.quarrelling = terms.quarrelling
        self.quarrelsome = rng.random() < 0.5  # else a market where nobody goes to law
        self.now = START
        self.block = BLOCK
        self.keys = {key.address: key for keys in KEYS.values() for key in keys}
        self.roles = {key.address: role for role, keys in KEYS.items() for key in keys} | {HOLDER: "holder"}
        self.orders: list[Order] = []
        self.leases: list[Held] = []
        self.past: dict[str, list[tuple[Any, ...]]] = {}  # arguments of earlier calls, to repeat
        self.moments: list[Moment] = []
        self.claims: list[Any] = []  # acts_claims.Claimed
        self.findings: dict[tuple[bytes, int], Any] = {}  # what an auditor committed to
        self.accusations: list[tuple[bytes, Held]] = []
        self.cases: list[bytes] = []  # that may be before the Court
        self.votes: dict[tuple[bytes, int, int], tuple[bytes, bytes]] = {}
        self.serial = 0

    # Chance.

    def one(self, items: Sequence[T]) -> T:
        return items[self.rng.randrange(len(items))]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def key(self, *roles: str) -> AccountKey:
        return self.one(KEYS[self.one(roles or tuple(KEYS))])

    def anyone(self) -> bytes:
        return self.key().address

    def number(self) -> int:
        """What a careful programmer would try."""
        return self.one([0, 1, 2, 2**40 - 1, 2**96 - 1, self.rng.getrandbits(96), self.rng.getrandbits(20)])

    # Time.

    def pass_time(self) -> None:
        p = self.parameters
        self.block += self.one([0, 1, 1, 1, 2])
        if self.chance(0.002 if self.quarrelsome else 0.01):
            self.block += 300
        self.now += self.one([0, 0, 0, 0, 1, 1, 2, 7])
        if self.chance(0.002 if self.quarrelsome else 0.01):
            self.now += self.one([p.claim_window_s, p.lock_tail_s, p.unbonding_s])

    def expect(self, at: int, act: Callable[[], Step | None]) -> None:
        if at < self.now + FAR:
            self.moments.append(Moment(at, act))

    def moment(self) -> Step | None:
        """Go to one of the next moments, or just before or after it, and try what it is about."""
        self.moments = sorted((each for each in self.moments if each.at >= self.now), key=lambda each: each.at)
        if not self.moments:
            return None
        found = self.moments[min(int(self.rng.expovariate(0.7)), len(self.moments) - 1)]
        self.now = max(self.now, found.at + self.one([-1, 0, 0, 1]))
        self.block += 1
        self.model.at(self.now, self.block)
        return found.act()

    # Calls.

    def step(self, by: bytes, contract: str, function: str, *arguments: Any, kind: str = "", state: str = "-") -> Step:
        role = self.roles.get(by, "contract")
        kept = self.past.setdefault(f"{contract}.{function}", [])
        kept.append(arguments)
        if len(kept) > 50:
            kept.pop(0)
        kind = kind or f"{contract}.{function}"
        return Step(self.now, self.block, by, contract, function, arguments, kind, state, role)

    # Signatures.

    def sign(self, key: AccountKey, domain: Domain, message: Message, *, honest: float = 0.95) -> Signature:
        """Of `key`; now and then broken in one of the ways in which signatures are."""
        signed = digest(domain, message)
        good = Signature(*compact(key.sign_digest(signed)))
        if self.chance(honest):
            return good
        s = int.from_bytes(good.vs, "big")
        parity, low = s >> 255, s & ((1 << 255) - 1)
        high = CURVE - low
        return self.one([
            NONE,
            Signature(*compact(self.key().sign_digest(signed))),
            Signature(good.r, ((high & ((1 << 255) - 1)) | (1 - parity) << 255).to_bytes(32, "big")),
            Signature(good.r, (low | (1 - parity) << 255).to_bytes(32, "big")),
            Signature(self.rng.randbytes(32), self.rng.randbytes(32)),
            Signature(good.r, bytes(32)),
            Signature(*compact(key.sign_digest(self.rng.randbytes(32)))),
        ])  # fmt: skip

    # Messages.

    def bent(self, message: M, *, often: float = 0.12) -> M:
        """The message, now and then with one field replaced by what may just not do."""
        if not self.chance(often):
            return message
        name, abi = self.one(schema.fields(type(message)))
        value: Any = getattr(message, name)
        if abi.bits:
            top = (1 << abi.bits) - 1
            value = self.one([0, 1, top, value + 1, max(0, value - 1), value * 2, value // 2]) & top
        elif abi.name == "address":
            value = self.one([bytes(20), self.anyone()])
        elif abi.name == "bytes32":
            value = self.one([bytes(32), self.rng.randbytes(32)])
        elif abi.name == "bool":
            value = not value
        return msgspec.structs.replace(message, **{name: value})

    def salt(self) -> bytes:
        self.serial += 1
        return self.serial.to_bytes(32, "big")
