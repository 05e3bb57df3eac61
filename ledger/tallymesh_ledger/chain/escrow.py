"""Binding of JobEscrow: a job's budget, its seats, what is paid from them, and what goes back.

In a batch the escrow does what can be done and names the rest: `Outcome.refused` says which item was not done, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from tallymesh.messages import Accept, AuditOrder, Lease, Order, Release, Verdict
from tallymesh.schema import Message, fields
from tallymesh_ledger.chain.contract import At, Contract, Outcome, compact, struct
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.staking import Token
from tallymesh_ledger.chain.transactions import Sender
from tallymesh_ledger.eip712 import keccak


class SeatStatus(IntEnum):
    """IJobEscrow.SeatState."""

    NONE = 0
    OPEN = 1
    CLOSED = 2  # pays no more; the lock still holds
    UNLOCKED = 3


class Job(msgspec.Struct, frozen=True):
    """What the escrow remembers of a job; `signer` zero: never opened."""

    signer: bytes
    free: int
    reserve: int
    signer_seated: int
    open_seats: int
    last_closed: int

    @property
    def opened(self) -> bool:
        return any(self.signer)


class Seat(msgspec.Struct, frozen=True):
    """One lease's part of the escrow; `until` is the time of closing once it is closed."""

    bond: int  # the payer's side of claims, what is left of it; the price is the lease's
    units: int
    paid_units: int
    until: int
    state: SeatStatus
    cases: int  # live claims and accusations: while there are any it neither closes nor unlocks
    by_signer: bool
    own_lock: bool  # the lock is not the lease's: slashed, or a newcomer's
    newcomer: bool  # taken without a slot


class Seating(msgspec.Struct, frozen=True):
    """A lease to seat; `signer_signature` is the signer's or the payer's, empty where it is the sender of the call."""

    lease: Lease
    worker_signature: bytes
    signer_signature: bytes = b""

    def lowered(self) -> Any:
        return (self.lease, compact(self.worker_signature), compact(self.signer_signature))


class Settlement(msgspec.Struct, frozen=True):
    lease: Lease
    accept: Accept
    signature: bytes = b""

    def lowered(self) -> Any:
        return (self.lease, self.accept, compact(self.signature))


class Closing(msgspec.Struct, frozen=True):
    lease: Lease
    release: Release
    signature: bytes = b""

    def lowered(self) -> Any:
        return (self.lease, self.release, compact(self.signature))


class Audit(msgspec.Struct, frozen=True):
    order: AuditOrder
    verdict: Verdict
    order_signature: bytes = b""
    verdict_signature: bytes = b""

    def lowered(self) -> Any:
        return (self.order, compact(self.order_signature), self.verdict, compact(self.verdict_signature))


class SeatEnd(msgspec.Struct, frozen=True):
    """All that ends one seat; what is None stays out."""

    lease: Lease
    accept: Accept | None = None
    accept_signature: bytes = b""
    release: Release | None = None
    release_signature: bytes = b""
    audits: tuple[Audit, ...] = ()

    def lowered(self) -> Any:
        return (
            self.lease,
            self.accept or _blank(Accept),
            compact(self.accept_signature),
            self.release or _blank(Release),
            compact(self.release_signature),
            [audit.lowered() for audit in self.audits],
        )


class JobEscrow(Contract):
    """Holds a job's budget, pays for accepted units, returns the rest."""

    NAME = "JobEscrow"

    def __init__(self, rpc: Rpc, address: bytes, token: Token) -> None:
        super().__init__(rpc, address)
        self.token = token

    async def job_of(self, job: bytes, *, at: At = "latest") -> Job:
        return struct(Job, await self.read("jobOf", job, at=at))

    async def jobs_of(self, jobs: Sequence[bytes], *, at: At = "latest") -> list[Job]:
        return [struct(Job, found) for found in await self.read_many([("jobOf", [job]) for job in jobs], at=at)]

    async def seat_of(self, seat: bytes, *, at: At = "latest") -> Seat:
        return _seat(await self.read("seatOf", seat, at=at))

    async def seats_of(self, seats: Sequence[bytes], *, at: At = "latest") -> list[Seat]:
        return [_seat(found) for found in await self.read_many([("seatOf", [seat]) for seat in seats], at=at)]

    async def credit_of(self, account: bytes, *, at: At = "latest") -> int:
        return int(await self.read("creditOf", account, at=at))

    async def fees_to_burn(self, *, at: At = "latest") -> int:
        return int(await self.read("feesToBurn", at=at))

    async def refundable(self, order: Order, *, at: At = "latest") -> tuple[int, int]:
        """(wages, reserve) that a refund by the payer would return now."""
        wages, reserve = await self.read("refundable", order, at=at)
        return wages, reserve

    async def open(self, sender: Sender, order: Order, seatings: Sequence[Seating] = ()) -> Outcome:
        """Fund the job from the sender and take its first seats, in one transaction."""
        async with sender.permits:
            permit = await self.token.permit(sender, self.address, order.wages + order.audit_reserve)
            lowered = [seating.lowered() for seating in seatings]
            intent = b"open" + keccak(self.interface.functions["seat"].encode(order, lowered))  # a permit has a time
            return await self.write(sender, "openWithPermit", order, lowered, permit, items=len(lowered), intent=intent)

    async def seat(self, sender: Sender, order: Order, seatings: Sequence[Seating]) -> Outcome:
        return await self.write(sender, "seat", order, [each.lowered() for each in seatings], items=len(seatings))

    async def settle(
        self, sender: Sender, settlements: Sequence[Settlement], *, brings_wei: int | None = None
    ) -> Outcome:
        lowered = [each.lowered() for each in settlements]
        return await self.write(sender, "settle", lowered, items=len(lowered), brings_wei=brings_wei)

    async def pay_audits(
        self, sender: Sender, lease: Lease, audits: Sequence[Audit], *, brings_wei: int | None = None
    ) -> Outcome:
        lowered = [each.lowered() for each in audits]
        return await self.write(sender, "payAudits", lease, lowered, items=len(audits), brings_wei=brings_wei)

    async def payable_audits(self, lease: Lease, audits: Sequence[Audit]) -> int:
        """How many of them `pay_audits` would pay now; asks and changes nothing."""
        return int(await self.read("payAudits", lease, [each.lowered() for each in audits]))

    async def close(self, sender: Sender, closings: Sequence[Closing]) -> Outcome:
        return await self.write(sender, "close", [each.lowered() for each in closings], items=len(closings))

    async def expire(self, sender: Sender, order: Order, leases: Sequence[Lease]) -> Outcome:
        return await self.write(sender, "expire", order, list(leases), items=len(leases))

    async def unlock(self, sender: Sender, leases: Sequence[Lease]) -> Outcome:
        return await self.write(sender, "unlock", list(leases), items=len(leases))

    async def refund(self, sender: Sender, order: Order) -> Outcome:
        return await self.write(sender, "refund", order)

    async def finish(self, sender: Sender, order: Order, ends: Sequence[SeatEnd]) -> Outcome:
        """Settle, pay audits, close and (where the sender may) refund, in one transaction."""
        items = sum(3 + len(end.audits) for end in ends)
        return await self.write(sender, "finish", order, [end.lowered() for end in ends], items=items)

    async def withdraw(self, sender: Sender, account: bytes, *, brings_wei: int | None = None) -> Outcome:
        """Pay out the account's credit to its owner; anyone may."""
        return await self.write(sender, "withdraw", account, brings_wei=brings_wei)

    async def burn_fees(self, sender: Sender) -> Outcome:
        return await self.write(sender, "burnFees")


def _seat(found: dict[str, Any]) -> Seat:
    return struct(Seat, {**found, "state": SeatStatus(found["state"])})


def _blank(message_type: type[Message]) -> Message:
    """All zeros: how a call says that an optional message is not there."""
    zeros: dict[str, Any] = {"bool": False, "address": bytes(20), "bytes32": bytes(32), "string": ""}
    return message_type(**{name: zeros.get(mark.name, 0) for name, mark in fields(message_type)})
