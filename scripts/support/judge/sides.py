"""Two sides of the same calls: the real bytecode in pyrevm, and the model. What either shows is bytes, as on a chain.

A `Step` is complete: who, when, in which block, what. `Pair.step` gives it to both and says how they differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import eth_abi
import pyrevm

from judge.coding import ALL, DEPLOYED, coder, error_data, reason
from judge.words import Json, type_of
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.envelope import contract_address
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.keys import checksum
from tallymesh_ledger.model.world import Quarrelling

CHAIN_ID = 424242
START = 1_750_000_000
BLOCK = 1_000
SUPPLY = 1_000_000_000 * WEI_PER_TOKEN
HOLDER = keccak(b"holder")[12:]
DEPLOYER = keccak(b"deployer")[12:]
GAS = 30_000_000
NOBODY = checksum(bytes(20))


class Step(NamedTuple):
    """One call. `kind`, `state` and `role` only count: what was tried, on what, by whom."""

    now: int
    block: int
    by: bytes
    contract: str
    function: str
    arguments: tuple[Any, ...]
    kind: str
    state: str
    role: str


class View(NamedTuple):
    contract: str
    function: str
    arguments: tuple[Any, ...]


class Terms(NamedTuple):
    """What the contracts are constructed with."""

    parameters: Parameters
    quarrelling: Quarrelling


class Seen(NamedTuple):
    """`data` is what was returned or, where not `ok`, the revert's; logs as (address, topics, data)."""

    ok: bool
    data: bytes
    logs: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]


class Divergence(Exception):
    """Real contract and model differ; the text shows how."""


class Modelled(Protocol):
    """The model's modules, real or changed."""

    World: Any
    Machine: Any
    Revert: Any


class Real:
    """The bytecode that is checked in, or another one."""

    def __init__(self, parameters: Parameters, quarrelling: Quarrelling, bytecode: Mapping[str, bytes]) -> None:
        cfg = pyrevm.CfgEnv(chain_id=CHAIN_ID)
        self._evm = pyrevm.EVM(env=pyrevm.Env(cfg=cfg), spec_id="CANCUN")
        self.at(START, BLOCK)
        self.addresses = addresses_of()
        for name in DEPLOYED:
            interface = abi.load(name)
            known = constructor_values(name, parameters, quarrelling, self.addresses)
            arguments = interface.creation(*(known[each.rstrip("_")] for each in interface.constructor_arguments))
            code = bytecode.get(name, interface.bytecode) + arguments[len(interface.bytecode) :]
            made = self._evm.deploy(checksum(DEPLOYER), code)
            assert bytes.fromhex(made[2:]) == self.addresses[name]
        self._names = {name: checksum(address) for name, address in self.addresses.items()}

    def at(self, now: int, block: int) -> None:
        self._evm.set_block_env(pyrevm.BlockEnv(number=block, timestamp=now, gas_limit=10 * GAS))

    def call(self, step: Step) -> Seen:
        data = coder(step.contract).call(step.function, step.arguments)
        try:
            output = self._evm.message_call(checksum(step.by), self._names[step.contract], calldata=data, gas=GAS)
        except RuntimeError as error:
            return Seen(False, _output(error), ())
        return Seen(True, bytes(output), tuple(_log(log) for log in self._evm.result.logs))

    def view(self, view: View) -> bytes:
        data = coder(view.contract).call(view.function, view.arguments)
        try:
            to = self._names[view.contract]
            return bytes(self._evm.message_call(NOBODY, to, calldata=data, gas=GAS, is_static=True))
        except RuntimeError as error:
            return b"reverted" + _output(error)


class Model:
    """The same in plain Python."""

    def __init__(
        self, parameters: Parameters, quarrelling: Quarrelling, addresses: Mapping[str, bytes], modules: Modelled
    ) -> None:
        self._revert = modules.Revert
        self.machine = modules.Machine(CHAIN_ID, block_number=BLOCK, now=START)
        self.machine.hash_of = lambda number: keccak(str(number).encode())  # as pyrevm has it
        self.world = modules.World(
            self.machine, addresses, parameters, holder=HOLDER, supply=SUPPLY, quarrelling=quarrelling
        )
        self._of = {address: name for name, address in addresses.items()}

    def at(self, now: int, block: int) -> None:
        self.machine.now = now
        self.machine.block_number = block

    def call(self, step: Step) -> Seen:
        function = getattr(self.world.contracts[step.contract], abi.snake(step.function))
        try:
            done = self.machine.call(function, step.by, *step.arguments)
        except self._revert as revert:
            return Seen(False, error_data(revert.name, revert.values), ())
        logs = tuple((e.contract, *coder(self._of[e.contract]).log(e.name, e.values)) for e in done.events)
        return Seen(True, coder(step.contract).result(step.function, done.value), logs)

    def view(self, view: View) -> bytes:
        try:
            value = getattr(self.world.contracts[view.contract], abi.snake(view.function))(*view.arguments)
        except self._revert as revert:
            return b"reverted" + error_data(revert.name, revert.values)
        return coder(view.contract).result(view.function, value)


class Pair:
    """Both sides, step by step."""

    def __init__(self, terms: Terms, modules: Modelled, bytecode: Mapping[str, bytes]) -> None:
        self.real = Real(*terms, bytecode)
        self.model = Model(*terms, self.real.addresses, modules)

    def step(self, step: Step, views: Iterable[View]) -> Seen:
        """What both showed. Raises Divergence."""
        self.real.at(step.now, step.block)
        self.model.at(step.now, step.block)
        expected, found = self.model.call(step), self.real.call(step)
        if expected != found:
            raise Divergence(_difference(step, expected, found))
        for view in views:
            told, is_ = self.model.view(view), self.real.view(view)
            if told != is_:
                shown = f"{view.contract}.{view.function}({', '.join(map(show, view.arguments))})"
                outputs = abi.load(view.contract).functions[view.function].outputs
                raise Divergence(
                    f"{shown} after {describe(step)}:\n  model    {_decoded(outputs, told)}\n"
                    f"  contract {_decoded(outputs, is_)}"
                )
        return found


def addresses_of() -> dict[str, bytes]:
    """Of the contracts, as their deployer's nonces give them."""
    return {name: contract_address(DEPLOYER, nonce) for nonce, name in enumerate(ALL)}


def constructor_values(contract: str, p: Parameters, q: Quarrelling, addresses: Mapping[str, bytes]) -> dict[str, Any]:
    """By the names of the contract's constructor arguments."""
    windows = (p.claim_window_s, p.evidence_window_s)
    known: dict[str, Any] = {
        **{name[0].lower() + name[1:]: address for name, address in addresses.items()},
        "escrow": addresses["JobEscrow"],
        "randomness": addresses["BlockhashRandomness"],
        "holder": HOLDER,
        "supply": SUPPLY,
        "slotWei": p.slot_wei,
        "unbondingDelay": p.unbonding_s,
        "classDelay": p.class_delay_s,
        "feeBp": p.fee_bp,
        "leaseMax": p.lease_max_s,
        "lockTail": p.lock_tail_s,
        "windowMin": min(windows),
        "windowMax": max(windows),
        "periodLength": q.period_length,
        "emission": q.emission,
        "quorum": q.court.quorum,
        "panel": q.court.panel,
        "appealPanel": q.court.appeal_panel,
        "memberFee": q.court.member_fee,
    }
    if contract == "Court":
        c = q.court
        known["windows"] = (c.move_window, c.commit_window, c.reveal_window, c.appeal_window)
    elif contract == "Claims":
        t = q.claims
        known["windows"] = (t.commit_window, t.open_window, t.reveal_window, t.challenge_window)
    return known


def describe(step: Step) -> str:
    shown = ", ".join(map(show, step.arguments))
    return f"{step.contract}.{step.function}({shown}) by {step.by.hex()[:8]} ({step.role}) at {step.now} [{step.kind}]"


def show(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex().lstrip("0")[:8] or "0x0"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(map(show, value))}]"
    fields = getattr(value, "_fields", None) or getattr(value, "__struct_fields__", None)
    if fields:
        return f"{type(value).__name__}({', '.join(f'{name}={show(getattr(value, name))}' for name in fields)})"
    return str(value)


def _difference(step: Step, expected: Seen, found: Seen) -> str:
    lines = [describe(step)]
    for side, seen in (("model", expected), ("contract", found)):
        if seen.ok:
            outputs = abi.load(step.contract).functions[step.function].outputs
            lines.append(f"  {side} returned {_decoded(outputs, seen.data)} and logged")
            lines += [f"    {_named(log)}" for log in seen.logs]
        else:
            lines.append(f"  {side} reverted: {reason(seen.data)} (0x{seen.data.hex()[:200]})")
    return "\n".join(lines)


def _decoded(outputs: Sequence[Json], data: bytes) -> Any:
    try:
        return show(eth_abi.decode([type_of(each) for each in outputs], data))
    except Exception:  # whatever it is, it is not what the ABI says
        return f"0x{data.hex()}"


def _named(log: tuple[bytes, tuple[bytes, ...], bytes]) -> str:
    _, topics, data = log
    for contract in DEPLOYED:
        for name, (topic, indexed, plain, _) in coder(contract).events.items():
            if topics and topic == topics[0]:
                values = _decoded(plain, data)
                return f"{contract}.{name}({[each['name'] for each in indexed]}={show(topics[1:])}, {values})"
    return f"unknown {show(topics)} {show(data)}"


def _output(error: RuntimeError) -> bytes:
    _, found, tail = str(error).partition("output: 0x")
    return bytes.fromhex(tail.split(" ")[0]) if found else b"halted: " + str(error).encode()


def _log(log: Any) -> tuple[bytes, tuple[bytes, ...], bytes]:
    topics = tuple(bytes.fromhex(topic[2:]) for topic in log.topics)
    return bytes.fromhex(str(log.address)[2:]), topics, bytes(log.data[1])
