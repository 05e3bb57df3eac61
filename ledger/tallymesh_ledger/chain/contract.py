"""What all bindings of contracts share: reads at a block, writes through a `Sender`, events, refused items of a batch.

Reads ask the newest block unless `at` names one; writes return when mined. This module knows no particular contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

import msgspec

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.transactions import Mined, Sender
from tallymesh_ledger.keys import checksum

At = int | str  # a block number, or "latest"
S = TypeVar("S", bound=msgspec.Struct)
ITEM_GAS = 150_000  # a seat taken costs about 110,000 more than one refused; what is not used is not paid
_NO_SIGNATURE = (bytes(32), bytes(32))


class Refusal(IntEnum):
    """Why the escrow did not do an item of a batch (IJobEscrow.Refusal)."""

    NONE = 0
    WRONG_JOB = 1
    WRONG_SEAT = 2
    NOT_OPEN = 3
    ALREADY_SEATED = 4
    TOO_LATE = 5
    TOO_EARLY = 6
    BAD_TERM = 7
    NO_UNITS = 8
    LOCK_TOO_SMALL = 9
    PRICE_TOO_HIGH = 10
    OVER_BUDGET = 11
    NEEDS_PAYER = 12
    NO_STAKE = 13
    BAD_SIGNATURE = 14
    NOTHING_NEW = 15
    NOT_PAID_YET = 16
    BAD_AUDIT = 17
    ALREADY_PAID = 18
    DISPUTED = 19


class Outcome(msgspec.Struct, frozen=True):
    """What a call did. `refused`: seat (or digest of the AuditOrder) -> why that item was not done."""

    mined: Mined
    events: tuple[abi.Event, ...]
    refused: dict[bytes, Refusal]

    def of(self, name: str) -> list[abi.Event]:
        return [event for event in self.events if event.name == name]


class Contract:
    """One contract at one address; may be shared by tasks."""

    NAME: ClassVar[str]

    def __init__(self, rpc: Rpc, address: bytes) -> None:
        self.rpc = rpc
        self.address = address
        self.interface = abi.load(self.NAME)

    def __repr__(self) -> str:
        return f"<{self.NAME} {checksum(self.address)}>"

    async def read(self, name: str, *arguments: Any, at: At = "latest") -> Any:
        """What a view returns. ChainError where it reverts, or where there is no such contract."""
        function = self.interface.functions[name]
        return self._decode(function, await self.rpc.call("eth_call", *self._request(function, arguments, at)))

    async def read_many(self, calls: Sequence[tuple[str, Sequence[Any]]], *, at: At = "latest") -> list[Any]:
        """Several views in one round trip; ChainError where any of them fails."""
        functions = [self.interface.functions[name] for name, _ in calls]
        requests = [
            ("eth_call", self._request(function, arguments, at))
            for function, (_, arguments) in zip(functions, calls, strict=True)
        ]
        answers = await self.rpc.batch(requests)
        for answer in answers:
            if isinstance(answer, ChainError):
                raise answer
        return [self._decode(function, answer) for function, answer in zip(functions, answers, strict=True)]

    async def write(
        self,
        sender: Sender,
        name: str,
        *arguments: Any,
        items: int = 0,
        gas_room: int = 0,
        intent: bytes = b"",
        brings_wei: int | None = None,
    ) -> Outcome:
        """Send, wait until mined. ChainError where the call as a whole reverts. `items` of a batch may be refused when
        the gas is estimated and done when it is mined, which costs more; `gas_room` is for one call that may; `intent`
        names calls that are the same though their bytes differ; `brings_wei` is what it pays to the sender's account
        (`Sender.send`)."""
        data = self.interface.functions[name].encode(*arguments)
        room = items * ITEM_GAS + gas_room
        mined = await sender.send(self.address, data, gas_room=room, intent=intent, brings_wei=brings_wei)
        events = tuple(mined.events(self.interface, self.address))
        refused = {event.values["id"]: Refusal(event.values["why"]) for event in events if event.name == "Refused"}
        return Outcome(mined, events, refused)

    def _request(self, function: abi.Function, arguments: Sequence[Any], at: At) -> tuple[Any, ...]:
        tag = hex(at) if isinstance(at, int) else at
        return {"to": _hex(self.address), "data": _hex(function.encode(*arguments))}, tag

    def _decode(self, function: abi.Function, answer: str) -> Any:
        data = bytes.fromhex(answer[2:])
        if not data:
            raise ChainError(
                "no_contract",
                f"There is no {self.NAME} at {checksum(self.address)} (or not yet at that block).",
                reverted=False,
                remedy="Check that the network file belongs to this chain.",
            )
        return function.decode(data)


def compact(signature: bytes) -> tuple[bytes, bytes]:
    """65 bytes r || s || v -> (r, vs) of EIP-2098: the parity of v goes into the top bit of s. Empty gives zeros."""
    if not signature:
        return _NO_SIGNATURE
    assert len(signature) == 65
    vs = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32], vs.to_bytes(32, "big")


def struct(kind: type[S], found: dict[str, Any]) -> S:
    """A Solidity struct as ours: fields are matched by name, so that a contract and we that drifted apart are found."""
    return kind(**{abi.snake(name): value for name, value in found.items()})


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
