"""The checked-in ABI of the contracts: how calls, results, events and errors are laid out in bytes.

Built on eth-abi alone (web3's contract objects cost 20 MB of memory and want their own provider). Message structs of
`tallymesh.messages` pass as they are: their fields are matched with the ABI by name, so that a contract and the schema
that drifted apart are found at once. This module does not know a chain.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import eth_abi
import msgspec
from eth_abi.exceptions import DecodingError

from tallymesh import schema
from tallymesh.schema import Message
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.keys import checksum

CONTRACTS = ("Token", "Registry", "JobEscrow")
DEPLOYED = (*CONTRACTS, "Rewards")  # in this order: an address follows from the place in it …
QUARRELS = ("Claims", "Accusations", "Court", "BlockhashRandomness")  # … and these behind them
ALL = (*DEPLOYED, *QUARRELS, "HistoryRandomness")  # the last in place of the one before it, where a chain has EIP-2935
Machine = Literal["cancun", "istanbul"]  # the newest hard fork whose instructions a contract's code needs
_ERROR = bytes.fromhex("08c379a0")  # Error(string)
_PANIC = bytes.fromhex("4e487b71")  # Panic(uint256)
_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "bad enum value",
    0x32: "index out of range",
    0x41: "out of memory",
}
SHOWN_TEXT = 300  # characters of a contract's own words that reach a sentence

Json = Mapping[str, Any]


class Refusal(msgspec.Struct, frozen=True):
    """Why a contract reverted: `code` for programs (the error's name in snake_case), `sentence` for people."""

    code: str
    sentence: str


class Event(msgspec.Struct, frozen=True):
    """One decoded log; `values` by the names that the ABI gives them, addresses and bytes as bytes."""

    name: str
    values: dict[str, Any]
    address: bytes
    block_number: int
    block_hash: bytes
    transaction: bytes
    index: int


class Function:
    """One function: encodes its arguments and decodes what it returns."""

    def __init__(self, entry: Json) -> None:
        self.name: str = entry["name"]
        self.inputs: Sequence[Json] = entry["inputs"]
        self.outputs: Sequence[Json] = entry.get("outputs", [])
        self._input_types = [_type(each) for each in self.inputs]
        self._output_types = [_type(each) for each in self.outputs]
        self.selector = keccak(f"{self.name}({','.join(self._input_types)})".encode())[:4]

    def encode(self, *arguments: Any) -> bytes:
        """Call data. TypeError or ValueError where an argument does not fit: a bug of ours, not of the chain."""
        if len(arguments) != len(self.inputs):
            raise TypeError(f"{self.name} takes {len(self.inputs)} arguments, got {len(arguments)}")
        values = [_lower(value, entry) for value, entry in zip(arguments, self.inputs, strict=True)]
        return self.selector + bytes(eth_abi.encode(self._input_types, values))

    def decode(self, data: bytes) -> Any:
        """What it returned: one value, or a tuple of several; structs are dictionaries."""
        values = eth_abi.decode(self._output_types, data)
        lifted = [_lift(value, entry) for value, entry in zip(values, self.outputs, strict=True)]
        return lifted[0] if len(lifted) == 1 else tuple(lifted)


class Interface:
    """One contract's ABI and creation code."""

    def __init__(self, name: str, document: Json) -> None:
        self.name = name
        self.bytecode = bytes.fromhex(str(document.get("bytecode", "0x"))[2:])
        self.functions: dict[str, Function] = {}
        self._constructor: Function | None = None
        self._events: dict[bytes, Json] = {}
        self._errors: dict[bytes, Json] = {}
        self.topics: dict[str, bytes] = {}
        for entry in document["abi"]:
            kind = entry["type"]
            if kind == "function":
                assert entry["name"] not in self.functions, f"{name}.{entry['name']} is overloaded"
                self.functions[entry["name"]] = Function(entry)
            elif kind == "constructor":
                self._constructor = Function({"name": "constructor", **entry})
            elif kind == "event":
                topic = keccak(_signature(entry))
                self._events[topic] = entry
                self.topics[entry["name"]] = topic
            elif kind == "error":
                self._errors[keccak(_signature(entry))[:4]] = entry

    @property
    def constructor_arguments(self) -> list[str]:
        """Names, in order."""
        return [] if self._constructor is None else [each["name"] for each in self._constructor.inputs]

    def creation(self, *arguments: Any, code: bytes = b"") -> bytes:
        """Data of the transaction that creates the contract. `code`: compiled for another machine."""
        code = code or self.bytecode
        assert code, f"{self.name} has no bytecode"
        if self._constructor is None:
            assert not arguments
            return code
        return code + self._constructor.encode(*arguments)[4:]

    def event(self, log: Json) -> Event | None:
        """The log of a JSON-RPC answer, decoded; None where it is no event of this contract."""
        topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
        entry = self._events.get(topics[0]) if topics else None
        if entry is None:
            return None
        indexed = [each for each in entry["inputs"] if each["indexed"]]
        plain = [each for each in entry["inputs"] if not each["indexed"]]
        values: dict[str, Any] = {}
        try:
            for each, topic in zip(indexed, topics[1:], strict=True):
                dynamic = each["type"] in ("string", "bytes") or each["type"].endswith("]") or each["type"] == "tuple"
                values[each["name"]] = topic if dynamic else _lift(eth_abi.decode([_type(each)], topic)[0], each)
            decoded = eth_abi.decode([_type(each) for each in plain], bytes.fromhex(log["data"][2:]))
        except (DecodingError, ValueError):
            return None
        values.update({each["name"]: _lift(value, each) for each, value in zip(plain, decoded, strict=True)})
        return Event(
            name=entry["name"],
            values=values,
            address=bytes.fromhex(log["address"][2:]),
            block_number=int(log["blockNumber"], 16),
            block_hash=bytes.fromhex(log["blockHash"][2:]),
            transaction=bytes.fromhex(log["transactionHash"][2:]),
            index=int(log["logIndex"], 16),
        )

    def refusal(self, data: bytes) -> Refusal | None:
        """The custom error in a revert's data; None where it is none of this contract."""
        entry = self._errors.get(data[:4])
        if entry is None:
            return None
        try:
            values = eth_abi.decode([_type(each) for each in entry["inputs"]], data[4:])
        except DecodingError:
            values = ()
        shown = ", ".join(
            f"{each['name']} {_show(_lift(value, each))}".strip()
            for each, value in zip(entry["inputs"], values, strict=False)
        )
        words = snake(entry["name"]).replace("_", " ")
        return Refusal(snake(entry["name"]), f"{self.name} refused: {words}{f' ({shown})' if shown else ''}.")


@functools.cache
def load(name: str) -> Interface:
    """The interface of one of `ALL`."""
    text = resources.files("tallymesh_ledger").joinpath("abi", f"{name}.json").read_text()
    return Interface(name, json.loads(text))


def creation_code(name: str, machine: Machine = "cancun") -> bytes:
    """Of one of `ALL`; for an old machine of one of `DEPLOYED`: there is no quarrel without block hashes."""
    if machine == "cancun":
        return load(name).bytecode
    text = resources.files("tallymesh_ledger").joinpath("abi", machine, f"{name}.json").read_text()
    return bytes.fromhex(json.loads(text)["bytecode"][2:])


def explain(data: bytes, *, machine: str = "") -> Refusal:
    """Why a call reverted, from the data it returned; `machine` is what the node itself said about it."""
    for name in (*DEPLOYED, *QUARRELS):
        found = load(name).refusal(data)
        if found is not None:
            return found
    try:
        if data[:4] == _ERROR:
            text = eth_abi.decode(["string"], data[4:])[0]
            return Refusal("reverted", f"The contract refused: {text[:SHOWN_TEXT]}.")
        if data[:4] == _PANIC:
            number = eth_abi.decode(["uint256"], data[4:])[0]
            return Refusal("panic", f"The contract failed: {_PANICS.get(number, f'panic {number:#x}')}.")
    except DecodingError:
        pass
    if data:
        return Refusal("reverted", f"The contract refused with the unknown error 0x{data[:36].hex()}.")
    said = f" ({machine[:SHOWN_TEXT]})" if machine else ""
    return Refusal("reverted", f"The contract refused without a reason{said}.")


def _signature(entry: Json) -> bytes:
    return f"{entry['name']}({','.join(_type(each) for each in entry['inputs'])})".encode()


def _type(entry: Json) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_type(each) for each in entry['components'])}){kind[5:]}"


def _lower(value: Any, entry: Json) -> Any:
    """Our values as eth-abi takes them."""
    kind: str = entry["type"]
    if kind.endswith("]"):
        inner = {**entry, "type": kind[: kind.rindex("[")]}
        return [_lower(each, inner) for each in value]
    if kind != "tuple":
        return value
    components = entry["components"]
    if isinstance(value, Message):
        schema.check(value)
        ours = [(schema.camel(name), abi.name) for name, abi in schema.fields(type(value))]
        # Solidity writes a reserved word with an underscore behind it
        theirs = [(each["name"].rstrip("_"), each["type"]) for each in components]
        if ours != theirs:
            raise TypeError(f"{type(value).__name__} of the schema and of the ABI differ: {ours} and {theirs}")
        return tuple(getattr(value, name) for name in value.__struct_fields__)
    if len(value) != len(components):
        raise TypeError(f"expected {len(components)} values, got {len(value)}")
    return tuple(_lower(each, component) for each, component in zip(value, components, strict=True))


def _lift(value: Any, entry: Json) -> Any:
    """eth-abi's values as we hold them: addresses are bytes, structs are dictionaries."""
    kind: str = entry["type"]
    if kind.endswith("]"):
        inner = {**entry, "type": kind[: kind.rindex("[")]}
        return [_lift(each, inner) for each in value]
    if kind == "tuple":
        return {each["name"]: _lift(item, each) for item, each in zip(value, entry["components"], strict=True)}
    if kind == "address":
        return bytes.fromhex(value[2:])
    return value


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return checksum(value) if len(value) == 20 else f"0x{value[:4].hex()}…"
    return str(value)


def snake(name: str) -> str:
    """``SeatNotOpen`` -> ``seat_not_open``, ``ERC20InsufficientBalance`` -> ``erc20_insufficient_balance``."""
    parts: list[str] = []
    for i, letter in enumerate(name):
        starts = letter.isupper() and i > 0 and (not name[i - 1].isupper() or name[i + 1 : i + 2].islower())
        parts.append(("_" if starts else "") + letter.lower())
    return "".join(parts)
