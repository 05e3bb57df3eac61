"""The peer's key file, its id and its signatures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from Crypto.Hash import keccak
from libp2p.crypto.rsa import create_new_key_pair as new_rsa_key_pair
from libp2p.peer.id import ID

from tallymesh.errors import LocalError, RemoteError
from tallymesh_node.network.keys import (
    generate,
    load_or_create,
    parse_peer_id,
    peer_id_hash,
    sign_as_peer,
    verify_peer_signature,
)


def test_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "peer.key"
    first = load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path).peer_id == first.peer_id
    assert os.listdir(path.parent) == ["peer.key"]


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(LocalError) as error:
        load_or_create(path)
    assert error.value.code == "key_file_open"
    assert "chmod 600" in error.value.remedy


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 40, new_rsa_key_pair(1024).private_key.serialize()], ids=["empty", "zeros", "rsa"]
)
def test_file_that_holds_no_ed25519_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peer.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(LocalError) as error:
        load_or_create(path)
    assert error.value.code == "bad_key_file"


def test_repr_does_not_show_the_key() -> None:
    key = generate()
    assert key.pair.private_key.to_bytes().hex() not in repr(key)
    assert key.peer_id in repr(key)


def test_signature_is_checked_against_peer_and_data() -> None:
    mine, other = generate(), generate()
    signature = sign_as_peer(mine, b"account")
    assert verify_peer_signature(mine.peer_id, b"account", signature)
    assert not verify_peer_signature(mine.peer_id, b"another", signature)
    assert not verify_peer_signature(other.peer_id, b"account", signature)
    # The same key signs libp2p's own things: such a signature must not pass for one of ours.
    assert not verify_peer_signature(mine.peer_id, b"account", mine.pair.private_key.sign(b"account"))


@pytest.mark.parametrize("signature", [b"", b"short", bytes(64), bytes(65)])
def test_malformed_signature_is_no_signature(signature: bytes) -> None:
    assert not verify_peer_signature(generate().peer_id, b"account", signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0OIl",  # not base58
        "12D3KooW",
        "é" * 20,
        "1" * 10_000,
        "QmZaHTgAjuLqBYWFG2qJAVCTu9AQ2rDoshxxmj967SLtgF",  # the hash of an RSA key, not a key
    ],
)
def test_what_is_no_peer_id_is_a_remote_error(text: str) -> None:
    with pytest.raises(RemoteError) as error:
        parse_peer_id(text)
    assert error.value.code == "bad_peer_id"
    assert not verify_peer_signature(text, b"", bytes(64))


def test_hash_covers_the_multihash_bytes() -> None:
    peer_id = generate().peer_id
    raw = ID.from_base58(peer_id).to_bytes()
    assert peer_id_hash(peer_id) == keccak.new(digest_bits=256, data=raw).digest()
    assert len(raw) == 38
