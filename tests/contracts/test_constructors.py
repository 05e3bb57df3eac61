"""A contract that is deployed with an argument that cannot be right is not deployed, and says which one."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.contract_world import Reverted, World
from tallymesh.schema import camel
from tallymesh_ledger.chain import abi
from tallymesh_ledger.eip712 import keccak

SOMEBODY = b"\x11" * 20
NOBODY = bytes(20)
PANEL_MAX = 31
# contract -> (argument, a value that will do); "windows" are four numbers
GOOD: dict[str, tuple[tuple[str, Any], ...]] = {
    "Registry": (
        ("token", SOMEBODY), ("escrow", SOMEBODY), ("slot_wei", 1), ("unbonding_delay", 0), ("class_delay", 0),
    ),
    "JobEscrow": (
        ("token", SOMEBODY), ("registry", SOMEBODY), ("claims", SOMEBODY), ("accusations", SOMEBODY),
        ("court", SOMEBODY), ("fee_bp", 9_999), ("lease_max", 1), ("lock_tail", 0), ("window_min", 7),
        ("window_max", 7), ("period_length", 1),
    ),
    "Rewards": (("token", SOMEBODY), ("registry", SOMEBODY), ("escrow", SOMEBODY), ("emission", 0)),
    "Claims": (
        ("token", SOMEBODY), ("registry", SOMEBODY), ("escrow", SOMEBODY), ("accusations", SOMEBODY),
        ("court", SOMEBODY), ("randomness", SOMEBODY), ("windows", (1, 1, 1, 1)),
    ),
    "Accusations": (
        ("token", SOMEBODY), ("registry", SOMEBODY), ("escrow", SOMEBODY), ("claims", SOMEBODY), ("court", SOMEBODY),
    ),
    "Court": (
        ("token", SOMEBODY), ("registry", SOMEBODY), ("claims", SOMEBODY), ("accusations", SOMEBODY),
        ("randomness", SOMEBODY), ("quorum", 1), ("panel", 7), ("appeal_panel", PANEL_MAX),
        ("member_fee", (2**96 - 1) // PANEL_MAX), ("windows", (1, 1, 1, 1)),
    ),
}  # fmt: skip
# (contract, argument, value, error): one step beyond what will do
BAD: tuple[tuple[str, str, Any, str], ...] = (
    *((contract, name, NOBODY, "zero_address")
      for contract, arguments in GOOD.items() for name, value in arguments if value == SOMEBODY),
    ("Registry", "slot_wei", 0, "zero_amount"),
    ("JobEscrow", "fee_bp", 10_000, "bad_parameter"),
    ("JobEscrow", "lease_max", 0, "bad_parameter"),
    ("JobEscrow", "window_min", 8, "bad_parameter"),
    ("JobEscrow", "period_length", 0, "bad_parameter"),
    ("Court", "quorum", 0, "bad_parameter"),
    ("Court", "panel", 0, "bad_parameter"),
    ("Court", "panel", PANEL_MAX + 1, "bad_parameter"),
    ("Court", "appeal_panel", 6, "bad_parameter"),
    ("Court", "appeal_panel", PANEL_MAX + 1, "bad_parameter"),
    ("Court", "member_fee", 0, "bad_parameter"),
    ("Court", "member_fee", (2**96 - 1) // PANEL_MAX + 1, "bad_parameter"),
    *((contract, "windows", tuple(int(i != j) for i in range(4)), "bad_parameter")
      for contract in ("Claims", "Court") for j in range(4)),
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def create(world: World, contract: str, **other: Any) -> bytes:
    arguments = [other.get(name, value) for name, value in GOOD[contract]]
    if contract in ("Claims", "Accusations"):  # they approve their court's fees as they are made
        assert other.get("token", SOMEBODY) in (SOMEBODY, NOBODY)
        arguments[0] = world.contracts["Token"] if arguments[0] == SOMEBODY else NOBODY
    return world.engine.transact(world.bank, b"", abi.load(contract).creation(*arguments)).output


@pytest.mark.parametrize("contract", GOOD)
def test_arguments_at_their_edges_will_do(world: World, contract: str) -> None:
    assert create(world, contract)


@pytest.mark.parametrize(("contract", "name", "value", "error"), BAD, ids=lambda value: str(value)[:14])
def test_an_argument_that_cannot_be_right_is_refused(
    world: World, contract: str, name: str, value: Any, error: str
) -> None:
    with pytest.raises(Reverted) as refused:
        create(world, contract, **{name: value})
    assert refused.value.code == error
    if error == "bad_parameter":  # a panel that is too large would be refused for the larger one's sake, too
        assert camel(name).encode()[:4].hex() in str(refused.value)


def test_a_chain_without_the_contract_of_history_is_refused(world: World) -> None:
    with pytest.raises(Reverted, match=keccak(b"NoHistory()")[:4].hex()):
        world.engine.transact(world.bank, b"", abi.load("HistoryRandomness").creation())
