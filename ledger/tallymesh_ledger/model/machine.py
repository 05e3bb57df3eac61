"""What contracts stand on: a clock, a block, storage that forgets a call that reverted, events in order.

It knows no contract. Storage is made of `Store` objects, which remember what they held before a change for as long as
the outermost call runs; values put into them are never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import msgspec

from tallymesh_ledger.eip712 import keccak, word

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

ZERO_ADDRESS = bytes(20)
ZERO_WORD = bytes(32)
BLOCKHASHES = 256  # how many blocks back a contract can see


class Revert(Exception):
    """The call changed nothing. `name` and `values` are those of the contract's error."""

    def __init__(self, name: str, *values: Any) -> None:
        self.name = name
        self.values = values
        super().__init__(f"{name}{values}")


class Event(msgspec.Struct, frozen=True):
    """`values` by the names of the interface; addresses and words are bytes."""

    contract: bytes
    name: str
    values: dict[str, Any]


class Done(msgspec.Struct, frozen=True):
    """What a call returned and what it logged."""

    value: Any
    events: tuple[Event, ...]


class Store(Generic[Key, Value]):
    """A Solidity mapping: every key has a value, `default` until one is set."""

    def __init__(self, machine: Machine, default: Value) -> None:
        self._machine = machine
        self._default = default
        self._values: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        return self._values.get(key, self._default)

    def __setitem__(self, key: Key, value: Value) -> None:
        before = self[key]
        self._machine.undo.append(lambda: self._values.__setitem__(key, before))
        self._values[key] = value

    def items(self) -> list[tuple[Key, Value]]:
        return list(self._values.items())


class Machine:
    """One chain. `block_number` and `now` (Unix seconds) belong to whoever drives it."""

    def __init__(self, chain_id: int, *, block_number: int = 1, now: int = 0) -> None:
        self.chain_id = chain_id
        self.block_number = block_number
        self.now = now
        self.undo: list[Callable[[], None]] = []
        self._events: list[Event] = []
        self._running = False

    def block_hash(self, number: int) -> bytes:
        """As BLOCKHASH: zero for the present block, the future, and what is older than 256 blocks."""
        if not self.block_number - BLOCKHASHES <= number < self.block_number:
            return ZERO_WORD
        return self.hash_of(number)

    def hash_of(self, number: int) -> bytes:
        """The hash of any block; a driver that has real ones replaces this."""
        return keccak(b"block" + word(number))

    def emit(self, contract: bytes, name: str, **values: Any) -> None:
        self._events.append(Event(contract, name, values))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Done:
        """Run one call from outside: all of it, or nothing and Revert."""
        assert not self._running, "contracts call each other directly"
        self._running = True
        try:
            value = function(*arguments)
        except BaseException:
            self.back_to((0, 0))
            raise
        finally:
            self._running = False
            events = self.settle()
        return Done(value, tuple(events))

    def settle(self) -> list[Event]:
        """What was done is final; the events of it."""
        events, self._events = self._events, []
        self.undo.clear()
        return events

    def mark(self) -> tuple[int, int]:
        """Where a `try` begins; `back_to` undoes what came after it."""
        return len(self.undo), len(self._events)

    def back_to(self, mark: tuple[int, int]) -> None:
        changes, events = mark
        while len(self.undo) > changes:
            self.undo.pop()()
        del self._events[events:]
