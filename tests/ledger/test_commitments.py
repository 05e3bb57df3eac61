"""Merkle commitments, sampling and signatures: each check with what gets through when it is taken out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymesh import messages, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import Opening
from tallymesh_ledger import eip712, keys, merkle, sampling
from tallymesh_ledger.registry import RegistryAt

DOMAINS = eip712.Domains(
    eip712.Domain("Tallymesh Registry", 5, b"\1" * 20), eip712.Domain("Tallymesh JobEscrow", 5, b"\2" * 20)
)
words = st.binary(min_size=32, max_size=32)


@given(st.lists(words, min_size=1, max_size=40), st.data())
@settings(max_examples=60)
def test_a_path_proves_its_own_leaf_at_its_own_place_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, siblings = merkle.root(leaves), merkle.path(leaves, index)
    assert merkle.verify(root, len(leaves), index, leaves[index], siblings)
    assert not merkle.verify(root, len(leaves) + 1, index, leaves[index], siblings)
    assert not merkle.verify(root, len(leaves), index, eip712.keccak(leaves[index]), siblings)
    assert not merkle.verify(root, len(leaves), index, leaves[index], [*siblings, bytes(32)])
    other = (index + 1) % len(leaves)
    if leaves[other] != leaves[index]:
        assert not merkle.verify(root, len(leaves), other, leaves[index], siblings)


def test_padding_cannot_pass_for_a_unit() -> None:
    """Without the count in the root, three leaves and the same three plus a zero leaf would have one root."""
    leaves = [bytes([i]) * 32 for i in (1, 2, 3)]
    assert merkle.root(leaves) != merkle.root([*leaves, bytes(32)])


def test_a_leaf_binds_every_part_of_its_opening() -> None:
    opening = Opening(*(bytes([i]) * 32 for i in range(5)))
    seen = {
        merkle.leaf(b"\7" * 32, 3, opening),
        merkle.leaf(b"\7" * 32, 4, opening),
        merkle.leaf(b"\6" * 32, 3, opening),
    }
    for name in ("unit_id", "start", "end", "salt", "aux"):
        parts = {field: getattr(opening, field) for field in opening.__struct_fields__} | {name: rb"\9" * 32}
        seen.add(merkle.leaf(b"\7" * 32, 3, Opening(**parts)))
    assert len(seen) == 8


@given(words, st.integers(1, 200), st.integers(0, 10_000))
@settings(max_examples=100)
def test_a_sample_is_distinct_in_range_and_at_least_one(seed: bytes, count: int, rate: int) -> None:
    k = sampling.sample_count(seed, count, rate)
    drawn = sampling.draw_units(seed, count, k)
    assert 1 <= k <= count
    assert len(set(drawn)) == k
    assert all(0 <= index < count for index in drawn)
    assert abs(k - max(1, rate * count / 10_000)) <= 1


def test_every_unit_is_drawn_about_equally_often() -> None:
    counts = [0] * 20
    for number in range(4000):
        seed = eip712.keccak(number.to_bytes(4, "big"))
        for index in sampling.draw_units(seed, 20, 3):
            counts[index] += 1
    assert all(500 < count < 700 for count in counts), counts  # 600 expected, 23 the standard deviation


def test_the_rate_holds_on_average_over_seeds() -> None:
    """25 units at 4 % are one sample exactly; 40 are 1.6 on average, so the fraction is rounded by the seed."""
    seeds = [eip712.keccak(number.to_bytes(4, "big")) for number in range(2000)]
    assert {sampling.sample_count(seed, 25, 400) for seed in seeds} == {1}
    mean = sum(sampling.sample_count(seed, 40, 400) for seed in seeds) / len(seeds)
    assert 1.55 < mean < 1.65


def test_five_of_a_hundred_find_half_bad_work_with_97_percent() -> None:
    assert sampling.detection(100, 100, 5) == 1.0
    assert 0.97 < sampling.detection(100, 50, 5) < 0.98
    assert round(sampling.detection(100, 1, 5), 4) == 0.05


def registry(slots: list[bytes | None], **more: object) -> RegistryAt:
    live = {account: b"\5" * 32 for account in slots if account}
    fields = {"classes": live, **more}
    return RegistryAt(block_number=1, block_hash=bytes(32), block_time=0, slots=tuple(slots), **fields)


ACCOUNTS = [bytes([i]) * 20 for i in range(1, 9)]
PARTIES = {"payer": ACCOUNTS[0], "signer": b"\x77" * 20, "worker": ACCOUNTS[1], "numeric_class": b"\5" * 32}


def test_parties_their_owners_other_classes_and_excluded_accounts_never_audit() -> None:
    classes = {account: b"\5" * 32 for account in ACCOUNTS} | {ACCOUNTS[4]: b"\6" * 32}
    owners = {ACCOUNTS[2]: ACCOUNTS[1], ACCOUNTS[3]: ACCOUNTS[0]}
    view = registry([*ACCOUNTS, None], owners=owners, classes=classes)
    assert view.admissible(**PARTIES, excluded={ACCOUNTS[5]}) == {ACCOUNTS[6], ACCOUNTS[7]}


def test_splitting_stake_over_accounts_does_not_change_the_odds() -> None:
    whole = registry([ACCOUNTS[2]] * 4 + [ACCOUNTS[3]] * 4)
    split = registry([ACCOUNTS[2], ACCOUNTS[4], ACCOUNTS[5], ACCOUNTS[6]] + [ACCOUNTS[3]] * 4)
    for number in range(50):
        seed = eip712.keccak(number.to_bytes(4, "big"))
        first = whole.draw_auditor(seed, 0, 0, whole.admissible(**PARTIES, excluded=()))
        second = split.draw_auditor(seed, 0, 0, split.admissible(**PARTIES, excluded=()))
        assert first is not None
        assert second is not None
        assert first[0] == second[0] == 0
        assert (first[1] == ACCOUNTS[3]) == (second[1] == ACCOUNTS[3])


def test_a_released_slot_is_skipped_and_counted() -> None:
    view = registry([None] * 7 + [ACCOUNTS[2]])
    found = view.draw_auditor(b"\1" * 32, 0, 0, {ACCOUNTS[2]})
    assert found is not None
    attempt, account = found
    assert account == ACCOUNTS[2]
    slots = [sampling.auditor_slot(b"\1" * 32, 0, 0, a, 8) for a in range(attempt + 1)]
    assert slots[-1] == 7
    assert 7 not in slots[:-1]


def test_no_admissible_slot_ends_the_draw() -> None:
    assert registry([None] * 3).draw_auditor(b"\1" * 32, 0, 0, set()) is None
    assert registry([]).draw_auditor(b"\1" * 32, 0, 0, set()) is None


def test_signature_of_another_network_contract_or_account_is_refused() -> None:
    key = keys.AccountKey(b"\3" * 32)
    receipt = messages.Receipt(seat=b"\1" * 32, position=0, leaf=b"\2" * 32)
    signed = key.sign(DOMAINS, receipt)
    keys.check(DOMAINS, signed, key.address)
    elsewhere = eip712.Domains(DOMAINS.registry, eip712.Domain("Tallymesh JobEscrow", 6, b"\2" * 20))
    with pytest.raises(RemoteError, match="not signed by"):
        keys.check(elsewhere, signed, key.address)
    with pytest.raises(RemoteError, match="not signed by"):
        keys.check(DOMAINS, signed, b"\4" * 20)


def test_malleable_signature_is_refused() -> None:
    """s and order - s both verify; without the low-s rule a third person could make a second 'different' message."""
    key = keys.AccountKey(b"\3" * 32)
    digest = b"\5" * 32
    signature = key.sign_digest(digest)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = order - int.from_bytes(signature[32:64], "big")
    twisted = signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])
    assert keys.recover(digest, signature) == key.address
    with pytest.raises(ValueError, match="high"):
        keys.recover(digest, twisted)


@given(st.binary(min_size=0, max_size=80), words)
@settings(max_examples=150)
def test_recovering_from_any_bytes_gives_an_address_or_value_error(signature: bytes, digest: bytes) -> None:
    try:
        assert len(keys.recover(digest, signature)) == 20
    except ValueError:
        pass


def test_secret_never_shows_in_a_repr() -> None:
    key = keys.AccountKey(b"\x0b" * 32)
    assert key.secret.hex() not in repr(key)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_decoding_any_bytes_gives_a_message_or_remote_error(data: bytes) -> None:
    for message_type in messages.ALL:
        try:
            wire.decode(data, message_type)
        except RemoteError:
            pass


def test_non_canonical_bytes_of_a_good_message_are_refused() -> None:
    """[5] as one byte or as four is the same number: without the canonical form one message would have many ids."""
    key = keys.AccountKey(b"\3" * 32)
    signed = key.sign(DOMAINS, messages.Receipt(seat=b"\1" * 32, position=5, leaf=b"\2" * 32))
    longer = signed.body.replace(b"\x05\xc4", b"\xce\x00\x00\x00\x05\xc4", 1)
    assert longer != signed.body
    with pytest.raises(RemoteError, match="canonical"):
        wire.decode(longer, messages.Receipt)
