"""The contracts in an EVM inside this process, called with the schema's messages and real signatures.

Two engines: `Quick` (pyrevm) runs thousands of calls a second, but touched storage stays warm from call to call;
`Exact` (py-evm, as in the embedded chain) mines every call as a signed transaction, with the gas that a chain counts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
import pyrevm

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.messages import Accept, AuditOrder, AuditReason, Lease, Order, Release, Result, Verdict
from tallymesh.network import Contracts, Network
from tallymesh.parameters import Parameters
from tallymesh.schema import Message
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.chain.envelope import Fees, Plain, contract_address, sign
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.embedded_chain.evm import CallRequest, Evm
from tallymesh_ledger.embedded_chain.evm import Reverted as PyReverted
from tallymesh_ledger.embedded_chain.store import Store
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey, checksum

CHAIN_ID = 424242
START = 1_750_000_000  # any time will do
SUPPLY = 1_000_000_000 * WEI_PER_TOKEN
NOBODY = (bytes(32), bytes(32))  # a signature left out
GAS = 30_000_000


class Reverted(Exception):
    """A transaction failed; `code` is the custom error's name in snake_case."""

    def __init__(self, data: bytes, machine: str) -> None:
        said = abi.explain(data, machine=machine)
        self.code = said.code
        super().__init__(f"{said.code}: {said.sentence}")


class Done(msgspec.Struct, frozen=True):
    value: Any
    events: tuple[abi.Event, ...]
    gas: int

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event.values for event in self.events if event.name == name]


class Raw(msgspec.Struct, frozen=True):
    output: bytes
    logs: tuple[dict[str, str], ...]  # as JSON-RPC has them
    gas: int


class Engine(Protocol):
    def transact(self, by: AccountKey, to: bytes, data: bytes, *, asked: bool = True) -> Raw:
        """Raises Reverted. An empty `to` creates. What it returns is left out where nobody asked for it."""

    def ask(self, to: bytes, data: bytes) -> bytes:
        """Leaves no trace."""

    def at(self, now: int) -> None:
        """Set the clock, and begin a new block."""


class Quick:
    """pyrevm."""

    def __init__(self) -> None:
        self._block = 1000
        self._evm = pyrevm.EVM(env=pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=CHAIN_ID)), spec_id="CANCUN")
        self.at(START)

    def at(self, now: int) -> None:
        self._block += 1
        self._evm.set_block_env(pyrevm.BlockEnv(number=self._block, timestamp=now, gas_limit=10 * GAS))

    def transact(self, by: AccountKey, to: bytes, data: bytes, *, asked: bool = True) -> Raw:
        sender = checksum(by.address)
        try:
            if to:
                output = self._evm.message_call(sender, checksum(to), calldata=data, gas=GAS)
            else:
                output = bytes.fromhex(self._evm.deploy(sender, data)[2:])
        except RuntimeError as error:
            raise _reverted(error) from None
        result = self._evm.result
        return Raw(bytes(output), tuple(self._log(log) for log in result.logs), int(result.gas_used))

    def ask(self, to: bytes, data: bytes) -> bytes:
        with self.undone():
            try:
                return bytes(self._evm.message_call(checksum(bytes(20)), checksum(to), calldata=data, gas=GAS))
            except RuntimeError as error:
                raise _reverted(error) from None

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens inside, the clock's moves left out, did not happen afterwards."""
        mark = self._evm.snapshot()
        try:
            yield
        finally:
            self._evm.revert(mark)

    def _log(self, log: Any) -> dict[str, str]:
        return _placed({"topics": log.topics, "data": "0x" + bytes(log.data[1]).hex(), "address": str(log.address)})


class Exact:
    """py-evm, as the embedded chain runs it."""

    def __init__(self, accounts: int = 50) -> None:
        ether = {AccountKey(_secret(number)).address: 10**24 for number in range(1, accounts + 1)}
        self._now = START
        self._nonces: dict[bytes, int] = {}
        self._store = Store(Path(":memory:"), durable=False)
        self._evm = Evm(self._store, CHAIN_ID, ether, clock=lambda: self._now)

    def copy(self) -> Exact:
        """Another chain with the same blocks."""
        made = copy.copy(self)
        made._nonces = dict(self._nonces)
        made._store = Store(Path(":memory:"), durable=False)
        self._store._sql.backup(made._store._sql)
        made._evm = Evm(made._store, CHAIN_ID, {}, clock=lambda: made._now)
        return made

    def at(self, now: int) -> None:
        self._now = now

    def transact(self, by: AccountKey, to: bytes, data: bytes, *, asked: bool = True) -> Raw:
        nonce = self._nonces.get(by.address, 0)
        fees = Fees(max_fee=10**12, tip=1)
        envelope = sign(by, Plain(chain_id=CHAIN_ID, nonce=nonce, gas=GAS, fees=fees, to=to, data=data))
        output = self._call(by.address, to, data) if to and asked else b""  # a receipt does not say
        before = self._evm.snapshot()
        self._evm.mine(self._evm.decode(envelope.raw))
        found = self._store.transaction(envelope.hash)
        assert found
        receipt = json.loads(found[2])
        if int(receipt["status"], 16) != 1:
            assert self._evm.revert(before), "what fails is as if it had not been sent"
            self._call(by.address, to, data)  # says why
            raise AssertionError("a transaction failed whose call does not")
        self._nonces[by.address] = nonce + 1
        if not to:
            output = bytes.fromhex(receipt["contractAddress"][2:])
        return Raw(output, tuple(receipt["logs"]), int(receipt["gasUsed"], 16))

    def ask(self, to: bytes, data: bytes) -> bytes:
        return self._call(bytes(20), to, data)

    def _call(self, sender: bytes, to: bytes, data: bytes) -> bytes:
        try:
            return self._evm.call(CallRequest(sender, to, data), self._evm.head)
        except PyReverted as error:
            raise Reverted(error.data, error.reason) from None


def _secret(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _placed(log: dict[str, Any]) -> dict[str, Any]:
    zero = "0x" + "00" * 32
    return {**log, "blockNumber": "0x0", "blockHash": zero, "transactionHash": zero, "logIndex": "0x0"}


def _reverted(error: RuntimeError) -> Reverted:
    text = str(error)
    _, found, tail = text.partition("output: 0x")
    return Reverted(bytes.fromhex(tail.split(" ")[0]) if found else b"", text)


class World:
    """Contracts, accounts and a clock. `call` sends a transaction, `read` asks without leaving a trace."""

    def __init__(self, engine: Engine | None = None, parameters: Parameters | None = None) -> None:
        self.engine = engine or Quick()
        self.parameters = p = parameters or Parameters()
        self.now = START
        self._accounts = 0
        self.bank = self.account()
        where = [contract_address(self.bank.address, nonce) for nonce in range(len(abi.DEPLOYED) + 3)]
        self.claims, self.accusations, self.court = where[-3:]  # nobody is there: what they may do, no test here does
        windows = (p.claim_window_s, p.evidence_window_s)
        arguments: dict[str, tuple[Any, ...]] = {
            "Token": (self.bank.address, SUPPLY),
            "Registry": (where[0], where[2], p.slot_wei, p.unbonding_s, p.class_delay_s),
            "JobEscrow": (
                where[0], where[1], *where[-3:], p.fee_bp, p.lease_max_s, p.lock_tail_s, min(windows), max(windows),
                p.period_s,
            ),
            "Rewards": (where[0], where[1], where[2], p.emission_wei),
        }  # fmt: skip
        self.contracts: dict[str, bytes] = {}
        for name, address in zip(abi.DEPLOYED, where, strict=False):
            made = self.engine.transact(self.bank, b"", abi.load(name).creation(*arguments[name]))
            assert made.output == address
            self.contracts[name] = address
        token, registry, escrow, rewards = (checksum(self.contracts[name]) for name in abi.DEPLOYED)
        addresses = Contracts(token, registry, escrow, rewards=rewards)
        network = Network(name="test", chain_id=CHAIN_ID, rpc_urls=(), contracts=addresses, parameters=p)
        self.domains = Domains.of(network)

    def copy(self) -> Self:
        """Another world in which the same has happened, on an engine that can be copied."""
        made = copy.copy(self)
        made.engine = self.engine.copy()
        made.contracts = dict(self.contracts)
        return made

    def account(self) -> AccountKey:
        self._accounts += 1
        return AccountKey(_secret(self._accounts))

    def funded(self, wei: int) -> AccountKey:
        """A new account with tokens, and both contracts approved for all of them."""
        key = self.account()
        self.call("Token", "transfer", key.address, wei, by=self.bank)
        for name in ("Registry", "JobEscrow"):
            self.call("Token", "approve", self.contracts[name], 2**256 - 1, by=key)
        return key

    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.engine.at(self.now)

    def call(self, contract: str, function: str, *arguments: Any, by: AccountKey) -> Done:
        entry = abi.load(contract).functions[function]
        data = entry.encode(*arguments)
        raw = self.engine.transact(by, self.contracts[contract], data, asked=bool(entry.outputs))
        events = tuple(event for log in raw.logs if (event := self._event(log)))
        return Done(entry.decode(raw.output) if entry.outputs else None, events, raw.gas)

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        entry = abi.load(contract).functions[function]
        return entry.decode(self.engine.ask(self.contracts[contract], entry.encode(*arguments)))

    def _event(self, log: dict[str, Any]) -> abi.Event | None:
        for name, address in self.contracts.items():
            if bytes.fromhex(log["address"][2:]) == address:
                return abi.load(name).event(log)
        return None


class Job:
    """A payer, its signer and staked workers, with every message that they may sign."""

    def __init__(self, world: World, *, workers: int, positions: int, price: int = WEI_PER_TOKEN // 100) -> None:
        self.world = world
        self.price = price
        wages = workers * positions * price
        self.payer = world.funded(10 * wages)
        self.signer = world.account()
        self.workers = [world.funded(world.parameters.slot_wei) for _ in range(workers)]
        for worker in self.workers:
            world.call("Registry", "buySlots", worker.address, 1, by=worker)
        self.order = Order(
            payer=self.payer.address, signer=self.signer.address, template=b"\x01" * 32, numeric_profile=b"\x02" * 32,
            cores=1, memory_mib=1024, disk_mib=1024, gpus=0, price_max=price, wages=wages, audit_reserve=wages // 5,
            lock_per_seat=price, claim_bond=0, audit_rate_bp=400, tally_units=50,
            claim_window=world.parameters.claim_window_s, evidence_window=world.parameters.evidence_window_s,
            auditors=0, auditors_root=bytes(32), signer_seat_max=wages, newcomers=False, deadline=world.now + 3600,
            salt=b"\x03" * 32,
        )  # fmt: skip
        self.id = job_id(world.domains, self.order)
        self.leases = [
            Lease(
                job=self.id, worker=worker.address, positions=positions, price=price, work_ms=1000,
                numeric_class=b"\x04" * 32, lock=2 * 50 * price, until=world.now + 3600, seat_by=world.now + 60,
                secret_1=b"\x05" * 32, secret_2=b"\x06" * 32, nonce=0x1122334455667788,
            )
            for worker in self.workers
        ]  # fmt: skip
        self.seats = [seat_id(world.domains, lease) for lease in self.leases]

    def copy(self) -> Self:
        """The same job in a copy of its world."""
        made = copy.copy(self)
        made.world = self.world.copy()
        return made

    def sign(self, key: AccountKey, message: Message) -> tuple[bytes, bytes]:
        return compact(key.sign(self.world.domains, message).signature)

    def seating(self, i: int, *, by_signer: bool = False) -> tuple[Any, ...]:
        lease = self.leases[i]
        return (lease, self.sign(self.workers[i], lease), self.sign(self.signer, lease) if by_signer else NOBODY)

    def accept(self, i: int, units: int, tally: int = 1) -> Accept:
        return Accept(seat=self.seats[i], tally=tally, units=units, chain=b"\x07" * 32, next_secret=b"\x08" * 32)

    def settlement(self, i: int, units: int) -> tuple[Any, ...]:
        accept = self.accept(i, units)
        return (self.leases[i], accept, self.sign(self.signer, accept))

    def closing(self, i: int, units: int) -> tuple[Any, ...]:
        release = Release(seat=self.seats[i], units=units)
        return (self.leases[i], release, self.sign(self.workers[i], release))

    def again(self) -> None:
        """The same job once more: another salt, so another id, and leases for it."""
        number = int.from_bytes(self.order.salt, "big") + 1
        self.order = msgspec.structs.replace(self.order, salt=number.to_bytes(32, "big"))
        self.id = job_id(self.world.domains, self.order)
        self.leases = [msgspec.structs.replace(lease, job=self.id) for lease in self.leases]
        self.seats = [seat_id(self.world.domains, lease) for lease in self.leases]

    def audit(self, i: int, auditor: AccountKey, position: int, *, by_payer: bool = False) -> tuple[Any, ...]:
        order = AuditOrder(
            seat=self.seats[i], tally=1, position=position, unit_id=b"\x09" * 32, reason=int(AuditReason.DRAWN), draw=0,
            attempt=0, auditor=auditor.address, fee=self.price * 11 // 10, commit_by=self.world.now + 60,
        )  # fmt: skip
        verdict = Verdict(
            audit_order=self.world.domains.digest(order), result=int(Result.MATCH), end=b"\x0a" * 32, salt=b"\x0b" * 32,
            probe=b"\x0c" * 32,
        )  # fmt: skip
        return (order, NOBODY if by_payer else self.sign(self.signer, order), verdict, self.sign(auditor, verdict))

    def end(self, i: int, units: int, audits: list[tuple[Any, ...]], *, released: bool) -> tuple[Any, ...]:
        """As the payer sends it: its own word needs no signature."""
        release = Release(seat=self.seats[i], units=units)
        blank = Release(seat=bytes(32), units=0)
        closing = (release, self.sign(self.workers[i], release)) if released else (blank, NOBODY)
        return (self.leases[i], self.accept(i, units, 3), NOBODY, *closing, audits)


def gas_report(world: World, *, workers: int, positions: int) -> dict[str, int]:
    """Gas of the usual transactions, in the steady state: accounts that were paid and had a job before.

    (In its first job an account's credit is a new word of storage: 17,100 gas more for each worker and for the payer.)
    """
    job = Job(world, workers=workers, positions=positions)
    everyone = range(workers)

    def opened() -> int:
        done = world.call("JobEscrow", "open", job.order, [job.seating(i) for i in everyone], by=job.payer)
        assert len(done.of("SeatOpened")) == workers
        return done.gas

    def finished(units: int, audits: int = 0) -> int:
        called = [job.workers[(i + 1) % workers] for i in everyone]
        ends = [
            job.end(i, units, [job.audit(i, called[i], p, by_payer=True) for p in range(audits)],
                    released=units < positions)
            for i in everyone
        ]  # fmt: skip
        done = world.call("JobEscrow", "finish", job.order, ends, by=job.payer)
        assert len(done.of("SeatClosed")) == workers
        assert len(done.of("AuditPaid")) == audits * workers
        assert done.of("Refused") == []
        return done.gas

    report: dict[str, int] = {}
    audits = 4
    opened()
    finished(positions - 1, audits)  # everybody's first credit
    job.again()
    report["open, 4 seats, by approval"] = opened()
    report["finish, 4 workers, all units paid"] = finished(positions)
    job.again()
    opened()
    report["finish, 4 workers, released early"] = finished(positions - 4)
    report["unlock, 4 seats"] = _unlocked(world, job)
    job.again()
    opened()
    report["finish, 4 workers, 16 audits"] = finished(positions - 4, audits)
    more = report["finish, 4 workers, 16 audits"] - report["finish, 4 workers, released early"]
    report["per audit"] = more // (audits * workers)
    job.again()
    opened()
    report["settle, one Accept for any number of units"] = world.call(
        "JobEscrow", "settle", [job.settlement(0, 10)], by=job.workers[0]
    ).gas
    report["withdraw"] = world.call("JobEscrow", "withdraw", job.workers[0].address, by=job.workers[0]).gas
    world.wait(3600 + job.order.claim_window + 1)
    report["expire, one"] = world.call("JobEscrow", "expire", job.order, [job.leases[0]], by=job.payer).gas
    buyer = world.funded(2 * world.parameters.slot_wei)
    world.call("Registry", "buySlots", buyer.address, 1, by=buyer)
    report["buySlots, one"] = world.call("Registry", "buySlots", buyer.address, 1, by=buyer).gas
    return report


def _unlocked(world: World, job: Job) -> int:
    now = world.now
    world.wait(world.parameters.lock_tail_s)
    done = world.call("JobEscrow", "unlock", list(job.leases), by=job.payer)
    assert len(done.of("LockEnded")) == len(job.leases)
    shift = world.now - now
    job.order = msgspec.structs.replace(job.order, deadline=job.order.deadline + shift)
    job.leases = [
        msgspec.structs.replace(lease, until=lease.until + shift, seat_by=lease.seat_by + shift) for lease in job.leases
    ]
    return done.gas


def main() -> None:
    """Print the table: `scripts/contracts gas`."""
    workers, receipts = 4, 256
    report = gas_report(World(Exact()), workers=workers, positions=receipts // workers)
    for what, gas in report.items():
        print(f"{what:48} {gas:>9,}")
    whole = report["open, 4 seats, by approval"] + report["finish, 4 workers, all units paid"]
    print(f"{f'a job of {workers} workers and {receipts} receipts':48} {whole:>9,}  {whole / receipts:,.0f} a receipt")
    with_audits = report["open, 4 seats, by approval"] + report["finish, 4 workers, 16 audits"]
    print(f"{'the same with 16 audits':48} {with_audits:>9,}  {with_audits / receipts:,.0f} a receipt")


if __name__ == "__main__":
    main()
