"""Golden bytes, digests and draws (written by scripts/make_vectors) against the code and a second reader each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from eth_abi import encode as abi_encode
from eth_account.messages import encode_typed_data

from tallymesh import schema, units, wire
from tallymesh.exchange import Opening
from tallymesh.messages import ALL
from tallymesh_ledger import eip712, keys, merkle, sampling

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
TYPES = {message.__name__: message for message in ALL}


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / name).read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def message_of(row: dict[str, Any]) -> schema.Message:
    message_type = TYPES[row["type"]]
    values: dict[str, Any] = {}
    for name, abi in schema.fields(message_type):
        raw = row["fields"][schema.camel(name)]
        values[name] = int(raw) if abi.bits else raw if abi.name in ("bool", "string") else unhex(raw)
    return message_type(**values)


def domains_of(row: dict[str, Any]) -> eip712.Domains:
    contract = bytes.fromhex(row["domain"]["verifyingContract"][2:])
    domain = eip712.Domain(row["domain"]["name"], row["domain"]["chainId"], contract)
    return eip712.Domains(domain, domain)


@pytest.mark.parametrize("row", rows("eip712.json"), ids=lambda row: row["type"])
def test_digest_is_the_golden_one_and_eth_account_agrees(row: dict[str, Any]) -> None:
    message = message_of(row)
    assert schema.type_string(type(message)) == row["type_string"]
    assert eip712.struct_hash(message).hex() == row["struct_hash"][2:]
    assert domains_of(row).digest(message).hex() == row["digest"][2:]
    fields = [{"name": schema.camel(n), "type": abi.name} for n, abi in schema.fields(type(message))]
    typed = encode_typed_data(
        domain_data=row["domain"],
        message_types={row["type"]: fields},
        message_data={schema.camel(n): getattr(message, n) for n, _ in schema.fields(type(message))},
    )
    assert eip712.keccak(b"\x19" + typed.version + typed.header + typed.body) == unhex(row["digest"])


@pytest.mark.parametrize("row", rows("wire.json"), ids=lambda row: row["type"])
def test_wire_bytes_are_the_golden_ones_and_msgpack_reads_them(row: dict[str, Any]) -> None:
    message, signature = message_of(row), unhex(row["signature"])
    data = unhex(row["bytes"])
    assert wire.encode(message, signature) == data
    assert wire.decode(data, type(message)).message == message
    kind, version, values, second_signature = msgpack.unpackb(data, raw=False)
    assert (kind, version, second_signature) == (message.TYPE, message.VERSION, signature)
    for (name, abi), value in zip(schema.fields(type(message)), values, strict=True):
        expected = getattr(message, name)
        assert value == (expected.to_bytes(32, "big") if abi.bits > 64 else expected)


def test_golden_signatures_recover_their_signer() -> None:
    digests = {(row["type"], json.dumps(row["fields"])): unhex(row["digest"]) for row in rows("eip712.json")}
    for row in rows("wire.json"):
        digest = digests[row["type"], json.dumps(row["fields"])]
        assert keys.checksum(keys.recover(digest, unhex(row["signature"]))) == row["signer"]


@pytest.mark.parametrize("row", rows("sampling.json"), ids=lambda row: f"{row['count']} at {row['rate_bp']}")
def test_draws_are_the_golden_ones_and_a_second_implementation_agrees(row: dict[str, Any]) -> None:
    seat, root, secret = unhex(row["seat"]), unhex(row["root"]), unhex(row["secret"])
    seed = sampling.tally_seed(seat, row["tally"], root, secret)
    assert seed == unhex(row["seed"])
    domain = eip712.keccak(b"tallymesh.seed.1")
    types = ["bytes32", "bytes32", "uint256", "bytes32", "bytes32"]
    assert seed == eip712.keccak(abi_encode(types, [domain, seat, row["tally"], root, secret]))
    assert sampling.secret_hash(secret) == unhex(row["secret_hash"])
    k = sampling.sample_count(seed, row["count"], row["rate_bp"])
    assert k == row["k"]
    assert sampling.draw_units(seed, row["count"], k) == row["units"] == _plain_fisher_yates(seed, row["count"], k)
    slots = [sampling.auditor_slot(seed, i, d, a, row["total_slots"]) for i in (0, 5) for d in (0, 2) for a in (0, 9)]
    assert slots == row["auditor_slots"]


def _plain_fisher_yates(seed: bytes, count: int, k: int) -> list[int]:
    places = list(range(count))
    for j in range(k):
        number = int.from_bytes(eip712.keccak(abi_encode(["bytes32", "string", "uint256"], [seed, "unit", j])), "big")
        other = j + number % (count - j)
        places[j], places[other] = places[other], places[j]
    return places[:k]


@pytest.mark.parametrize("row", rows("merkle.json"), ids=lambda row: f"{len(row['leaves'])} leaves")
def test_commitments_are_the_golden_ones(row: dict[str, Any]) -> None:
    seat = unhex(row["seat"])
    openings = [Opening(*map(unhex, parts)) for parts in row["openings"]]
    leaves = [merkle.leaf(seat, p, opening) for p, opening in enumerate(openings)]
    root, last = merkle.root(leaves), len(leaves) - 1
    assert [leaf.hex() for leaf in leaves] == [leaf[2:] for leaf in row["leaves"]]
    assert root == unhex(row["root"])
    assert merkle.path(leaves, last) == [unhex(s) for s in row["last_path"]]
    assert merkle.verify(root, len(leaves), last, leaves[last], merkle.path(leaves, last))
    assert merkle.chain_value(bytes(32), root, 0, len(leaves)) == unhex(row["chain"])


def test_unit_bytes_and_ids_are_the_golden_ones() -> None:
    (row,) = rows("units.json")
    unit = units.decode_unit(unhex(row["unit"]))
    assert units.unit_id(unit) == unhex(row["unit_id"])
    assert units.encode(units.decode_spec(unhex(row["spec"]))) == unhex(row["spec"])
