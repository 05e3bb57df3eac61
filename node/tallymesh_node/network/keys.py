"""The peer's libp2p key: an Ed25519 key in a file of mode 0600, the peer id that follows from it, and its signatures.

A peer id is the multihash of the public key; for Ed25519 it contains the key itself, so a signature can be checked
from the id alone. This module does not know the account (secp256k1) that the peer speaks for.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import base58
from Crypto.Hash import keccak
from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.serialization import deserialize_private_key
from libp2p.peer.id import ID

from tallymesh.errors import LocalError, RemoteError

# Identity multihash (0x00) of 36 bytes: a protobuf of key type 1 (Ed25519) and 32 bytes of key.
# https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
_ED25519_PREFIX = bytes.fromhex("002408011220")
_PEER_ID_BYTES = len(_ED25519_PREFIX) + 32
_PEER_ID_CHARACTERS = 64  # base58 of 38 bytes has 52; decoding is quadratic, so the length is checked first
# libp2p signs Noise handshakes, gossip and records with the same key: a prefix of our own keeps them apart.
_PREFIX = b"tallymesh-peer-signature:"


@dataclass(frozen=True)
class PeerKey:
    """A libp2p key pair and the peer id (base58) that it stands for."""

    pair: KeyPair = field(repr=False)
    peer_id: str


def generate() -> PeerKey:
    return _from_private(Ed25519PrivateKey.new())


def load_or_create(path: Path) -> PeerKey:
    """The key in `path` (libp2p's protobuf form), created where there is none. LocalError where it cannot be used."""
    if not path.exists():
        _create(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise LocalError(
            "key_file_open", f"Others can read the peer key {path} (mode {mode:o}).", remedy=f"Run 'chmod 600 {path}'."
        )
    try:
        private = deserialize_private_key(path.read_bytes())
    except Exception as error:  # libp2p lets protobuf's and NaCl's own errors through
        raise LocalError(
            "bad_key_file",
            f"{path} does not hold a libp2p key: {error}",
            remedy="Restore it from a backup or remove it.",
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise LocalError("bad_key_file", f"The key in {path} is not Ed25519.", remedy="Remove it; a new one is made.")
    return _from_private(private)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.new().serialize())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, never replaces the key that another process made meanwhile
    finally:
        draft.unlink()


def _from_private(private: Ed25519PrivateKey) -> PeerKey:
    public = private.get_public_key()
    return PeerKey(KeyPair(private, public), ID.from_pubkey(public).to_base58())


def parse_peer_id(text: str) -> ID:
    """The libp2p id in `text` (base58, Ed25519), or RemoteError: peer ids come from strangers' messages."""
    if len(text) <= _PEER_ID_CHARACTERS:
        try:
            raw = base58.b58decode(text.encode("ascii"))
        except ValueError:  # UnicodeEncodeError is one
            raw = b""
        if len(raw) == _PEER_ID_BYTES and raw.startswith(_ED25519_PREFIX):
            return ID(raw)
    raise RemoteError("bad_peer_id", f"{text[:_PEER_ID_CHARACTERS]!r} is not the id of a peer.")


def peer_id_hash(peer_id: str) -> bytes:
    """keccak256 of the peer id's multihash bytes: what PeerBinding and Offer carry."""
    return keccak.new(digest_bits=256, data=parse_peer_id(peer_id).to_bytes()).digest()


def sign_as_peer(key: PeerKey, data: bytes) -> bytes:
    """64 bytes: the peer says `data`. Used to sign the account back in a PeerBinding."""
    signature: bytes = key.pair.private_key.sign(_PREFIX + data)
    return signature


def verify_peer_signature(peer_id: str, data: bytes, signature: bytes) -> bool:
    """Whether the peer said `data`; False for anything malformed."""
    try:
        public = Ed25519PublicKey.from_bytes(parse_peer_id(peer_id).to_bytes()[len(_ED25519_PREFIX) :])
        return bool(public.verify(_PREFIX + data, signature))
    except (RemoteError, ValueError, TypeError):  # NaCl: a signature of the wrong length, a key off the curve
        return False
