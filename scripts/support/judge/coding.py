"""Calls, results, errors and events by the ABI in force, as bytes. Knows which contracts have bytecode."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from judge.words import Json, encoder, type_of
from tallymesh_ledger.chain import abi
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.world import NAMES

ALL = (*NAMES, "BlockhashRandomness")
DEPLOYED = [name for name in ALL if (resources.files("tallymesh_ledger") / "abi" / f"{name}.json").is_file()]


class Coder:
    """Encodes calls, results, errors and events by the ABI in force."""

    def __init__(self, contract: str) -> None:
        self.interface = abi.load(contract)
        self.inputs = {name: encoder(entry.inputs) for name, entry in self.interface.functions.items()}
        self.outputs = {name: encoder(entry.outputs) for name, entry in self.interface.functions.items()}
        self.errors: dict[str, tuple[bytes, int, Any]] = {}
        self.events: dict[str, tuple[bytes, list[Json], list[Json], Any]] = {}
        for entry in _document(contract)["abi"]:
            signature = f"{entry.get('name')}({','.join(type_of(each) for each in entry.get('inputs', []))})"
            if entry["type"] == "error":
                self.errors[entry["name"]] = (
                    keccak(signature.encode())[:4],
                    len(entry["inputs"]),
                    encoder(entry["inputs"]),
                )
            elif entry["type"] == "event":
                indexed = [each for each in entry["inputs"] if each["indexed"]]
                plain = [each for each in entry["inputs"] if not each["indexed"]]
                self.events[entry["name"]] = (keccak(signature.encode()), indexed, plain, encoder(plain))

    def call(self, function: str, arguments: Sequence[Any]) -> bytes:
        return self.interface.functions[function].selector + self.inputs[function](arguments)

    def result(self, function: str, value: Any) -> bytes:
        outputs = self.interface.functions[function].outputs
        return self.outputs[function]([] if not outputs else [value] if len(outputs) == 1 else value)

    def log(self, name: str, values: Mapping[str, Any]) -> tuple[tuple[bytes, ...], bytes]:
        if name not in self.events:
            return (name.encode(),), b""  # no event of the contract: a divergence
        topic, indexed, plain, encode = self.events[name]
        assert len(values) == len(indexed) + len(plain), f"{name} has other fields than {list(values)}"
        topics = (topic, *(encoder_of(each["type"])([values[each["name"]]]) for each in indexed))
        return topics, encode([values[each["name"]] for each in plain])


def _document(contract: str) -> Any:
    return json.loads(resources.files("tallymesh_ledger").joinpath("abi", f"{contract}.json").read_text())


@functools.cache
def coder(contract: str) -> Coder:
    return Coder(contract)


@functools.cache
def encoder_of(kind: str) -> Any:
    return encoder([{"type": kind, "name": ""}])


def error_data(name: str, values: Sequence[Any]) -> bytes:
    for contract in DEPLOYED:
        selector, count, encode = coder(contract).errors.get(name, (b"", -1, None))
        if count == len(values):  # two contracts may have errors of one name
            return selector + bytes(encode(values))
    raise AssertionError(f"no contract has the error {name}")


def reason(data: bytes) -> str:
    """The name of the error in a revert's data."""
    for contract in DEPLOYED:
        for name, (selector, _, _) in coder(contract).errors.items():
            if data[:4] == selector:
                return name
    return abi.explain(data).code
