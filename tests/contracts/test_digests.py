"""Python and the contracts agree on every id and every digest that a call depends on (on an EVM, without Node.js)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fakes.contract_world import Job, Reverted, World
from tallymesh import schema
from tallymesh.messages import ALL, Lease, Order, PeerBinding
from tallymesh.schema import Message
from tallymesh_ledger import solidity
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.jobs import DOMAIN_JOB, job_id, seat_id

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"


def random_message(rng: random.Random, message_type: type[Message]) -> Message:
    values: dict[str, object] = {}
    for name, abi in schema.fields(message_type):
        if abi.bits:
            values[name] = rng.choice([0, 1, (1 << abi.bits) - 1, rng.getrandbits(abi.bits)])
        elif abi.name == "bool":
            values[name] = rng.random() < 0.5
        else:
            values[name] = rng.randbytes(20 if abi.name == "address" else 32)
    return message_type(**values)


def test_domains_are_those_of_the_contracts() -> None:
    world = World()
    assert world.read("Registry", "domainSeparator") == world.domains.registry.separator
    assert world.read("JobEscrow", "domainSeparator") == world.domains.escrow.separator
    assert world.read("JobEscrow", "DOMAIN_JOB") == DOMAIN_JOB


def test_ids_of_random_orders_and_leases_agree() -> None:
    world, rng = World(), random.Random(20)
    for _ in range(100):
        order, lease = random_message(rng, Order), random_message(rng, Lease)
        assert isinstance(order, Order)
        assert isinstance(lease, Lease)
        assert world.read("JobEscrow", "jobIdOf", order) == job_id(world.domains, order)
        assert world.read("JobEscrow", "seatIdOf", lease) == seat_id(world.domains, lease)


def test_a_binding_signed_in_python_is_taken_and_one_for_another_domain_is_not() -> None:
    world = World()
    worker, relay = world.account(), world.account()
    binding = PeerBinding(peer_id_hash=b"\x01" * 32, account=worker.address, version=3)
    foreign = worker.sign_digest(b"\x05" * 32)
    with pytest.raises(Reverted, match="bad_signature"):
        world.call("Registry", "bind", binding, compact(foreign), by=relay)
    world.call("Registry", "bind", binding, compact(worker.sign(world.domains, binding).signature), by=relay)
    assert world.read("Registry", "peerOf", worker.address) == (b"\x01" * 32, 3)


def test_every_message_that_the_escrow_checks_is_taken_as_python_signs_it() -> None:
    """Lease, Accept, Release, AuditOrder and Verdict: each signature was made here and is checked there."""
    world = World()
    job = Job(world, workers=2, positions=10)
    stranger, auditor = world.account(), world.account()
    opened = world.call("JobEscrow", "open", job.order, [job.seating(0, by_signer=True)], by=job.payer)
    assert opened.of("Refused") == []
    assert [event["seat"] for event in opened.of("SeatOpened")] == [job.seats[0]]
    seated = world.call("JobEscrow", "seat", job.order, [job.seating(1, by_signer=True)], by=stranger)
    assert [event["seat"] for event in seated.of("SeatOpened")] == [job.seats[1]]
    settled = world.call("JobEscrow", "settle", [job.settlement(0, 4)], by=stranger)
    assert [event["units"] for event in settled.of("Settled")] == [4]
    paid = world.call("JobEscrow", "payAudits", job.leases[0], [job.audit(0, auditor, 3)], by=stranger)
    assert [event["auditor"] for event in paid.of("AuditPaid")] == [auditor.address]
    closed = world.call("JobEscrow", "close", [job.closing(0, 4)], by=stranger)
    assert [event["paidUnits"] for event in closed.of("SeatClosed")] == [4]


def test_a_message_changed_after_signing_takes_no_effect() -> None:
    world = World()
    job = Job(world, workers=1, positions=10)
    world.call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
    lease, accept, signature = job.settlement(0, 4)
    refused = world.call("JobEscrow", "settle", [(lease, job.accept(0, 5), signature)], by=job.payer)
    assert refused.value == 0
    assert refused.of("Settled") == []
    assert world.call("JobEscrow", "settle", [(lease, accept, signature)], by=job.payer).value == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [("src/generated/Messages.sol", solidity.library()), ("test/generated/Reader.sol", solidity.reader())],
)
def test_generated_solidity_is_what_the_schema_says(path: str, source: str) -> None:
    assert (CONTRACTS / path).read_text() == source, "run scripts/sync_abi"


def test_no_member_of_a_struct_is_a_word_that_solidity_keeps_for_itself() -> None:
    text = solidity.library()
    assert "bool final_;" in text
    assert "bool final)" in text, "the type string keeps the schema's word"
    assert all(f"struct {message.__name__} {{" in text for message in ALL)
