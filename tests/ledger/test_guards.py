"""One case for each check of seats, audits, proofs and trees that the other tests pass by."""

from __future__ import annotations

import msgspec
import pytest

from tallymesh.errors import CallerError, RemoteError
from tallymesh.exchange import Opening
from tallymesh.ids import ZERO32, SeatId
from tallymesh.messages import AuditReason, Lease, Leave, Release
from tallymesh_ledger import eip712, merkle, proofs
from tallymesh_ledger.audit import Audit, Subject
from tallymesh_ledger.proofs import Link, Proof
from tallymesh_ledger.seat import Seat

ONE = b"\x01" * 32


def new_seat() -> Seat:
    lease = Lease(
        job=ZERO32, worker=b"\x01" * 20, positions=3, price=5, work_ms=1000, numeric_class=ZERO32, lock=0, until=0,
        seat_by=0, secret_1=ONE, secret_2=b"\x02" * 32, nonce=1,
    )  # fmt: skip
    return Seat(SeatId(ONE), lease, 3)


@pytest.mark.parametrize("end", ["forfeit", "cancel", "leave"])
def test_a_seat_that_is_not_open_has_no_position_to_assign(end: str) -> None:
    seat = new_seat()
    assert seat.assignable() == ""
    getattr(seat, end)()
    assert seat.assignable() == "closed"


def test_an_auditor_is_called_for_a_unit_in_one_draw_only() -> None:
    audit = Audit(Subject(seed=ONE, index=0, end=ONE, reason=AuditReason.DRAWN), auditors_min=3, answers_max=3)
    auditor = b"\x07" * 20
    assert audit.ordered(0, 0, auditor)
    assert not audit.ordered(0, 0, auditor), "the same once more"
    for draw, attempt in ((0, 1), (1, 0)):
        with pytest.raises(RemoteError, match="called for this unit before"):
            audit.ordered(draw, attempt, auditor)


@pytest.mark.parametrize("value", ["0x" + "11" * 31, "0x" + "11" * 33, "0x"])
def test_a_proof_with_a_word_of_another_length_is_no_proof(value: str) -> None:
    opening = Opening(*(bytes([part]) * 32 for part in range(5)))
    made = Proof(seat=ONE, position=0, opening=opening, siblings=(ONE,), before=ZERO32, links=(Link(ONE, 0, 2),))
    plain = dict(proofs.plain(made))
    with pytest.raises(CallerError, match="not 32 bytes"):
        proofs.decode(msgspec.json.encode({**plain, "siblings": [value]}))


def test_a_tree_has_a_leaf_and_no_more_than_can_be_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merkle, "MAX_LEAVES", 2)
    assert merkle.root([ONE, ONE])
    for count in (0, 3):
        with pytest.raises(CallerError, match=f"not {count}"):
            merkle.root([ONE] * count)


@pytest.mark.parametrize("fields", [{"seat": b"short"}, {"units": 1 << 40}, {"units": -1}])
def test_what_does_not_fit_its_type_has_no_hash_that_could_be_signed(fields: dict[str, object]) -> None:
    release = msgspec.structs.replace(Release(seat=ONE, units=1), **fields)
    with pytest.raises(ValueError, match="Release"):
        eip712.struct_hash(release)


def test_what_is_no_text_has_no_hash_as_text() -> None:
    leave = msgspec.structs.replace(Leave(seat=ONE, code="bored"), code=b"bored")
    with pytest.raises(ValueError, match="expected text"):
        eip712.struct_hash(leave)
