"""An offer as it is gossiped: the signed Offer, and the binding of account and peer that proves who may send it.

The binding is signed by both keys: the account says which peer speaks for it, the peer signs the account back. An offer
without a valid one is dropped before it is relayed. This module does not know gossip or time beyond what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tallymesh import wire
from tallymesh.errors import RemoteError
from tallymesh.messages import Offer, PeerBinding
from tallymesh.wire import Signed
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domains
from tallymesh_node.network import PeerKey, peer_id_hash, sign_as_peer, verify_peer_signature

MAX_OFFER_BYTES = 512  # what every peer of the network hears every few seconds from every other one
MAX_SKEW_S = 60  # clocks of honest machines differ; an offer from further in the future is not believed
MAX_LIFETIME_S = 3600  # nobody can be kept in the books for longer by one message
MAX_BINDINGS = 4096  # remembered as checked, 100 bytes each
MAX_NEWCOMER_BINDINGS = 1024  # … of accounts without stake, which cost nothing: they must not push out the others


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`offer` is the signed Offer's wire form; the binding's other fields are the offer's own."""

    offer: bytes
    binding_version: int
    account_signature: bytes
    peer_signature: bytes


class Unchecked(NamedTuple):
    """An offer as it was read: well-formed, in time, and possibly forged."""

    offer: Offer
    signed: Signed
    envelope: Envelope


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


class Binding(msgspec.Struct, frozen=True):
    """This node's own binding, signed once at start-up."""

    message: PeerBinding
    account_signature: bytes
    peer_signature: bytes


def bind(domains: Domains, account: keys.AccountKey, peer: PeerKey, version: int) -> Binding:
    message = PeerBinding(peer_id_hash=peer_id_hash(peer.peer_id), account=account.address, version=version)
    digest = domains.digest(message)
    return Binding(message, account.sign_digest(digest), sign_as_peer(peer, digest))


def seal(domains: Domains, account: keys.AccountKey, binding: Binding, offer: Offer) -> bytes:
    """The bytes to publish."""
    signed = account.sign(domains, offer)
    envelope = Envelope(signed.body, binding.message.version, binding.account_signature, binding.peer_signature)
    data = _encoder.encode(envelope)
    assert len(data) <= MAX_OFFER_BYTES, f"an offer of {len(data)} bytes"
    return data


class Opener:
    """Checks envelopes. Remembers which bindings were found good, so that a repeat costs one signature, not three."""

    def __init__(self, domains: Domains, now: Callable[[], float]) -> None:
        self._domains = domains
        self._now = now
        self._good: dict[bytes, None] = {}
        self._good_newcomers: dict[bytes, None] = {}

    def open(self, author: str, data: bytes) -> Offer:
        """The offer in `data`, published by the peer `author`; RemoteError says what is wrong with it. Code `stale`
        where an honest peer may see it differently."""
        return self.check(author, self.read(author, data))

    def read(self, author: str, data: bytes) -> Unchecked:
        """All but the signatures: cheap, and nothing of it is to be believed."""
        if len(data) > MAX_OFFER_BYTES:
            raise RemoteError("too_large", f"An offer of {len(data)} bytes.", peer=author)
        try:
            envelope = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
            raise RemoteError("bad_message", f"Not an offer: {error}", peer=author) from None
        if _encoder.encode(envelope) != data:
            raise RemoteError("bad_message", "The offer is not in canonical form.", peer=author)
        signed = wire.decode(envelope.offer, Offer, peer=author)
        offer = signed.message
        assert isinstance(offer, Offer)
        if offer.peer_id_hash != peer_id_hash(author):
            raise RemoteError("bad_binding", "The offer is for another peer than the one that sent it.", peer=author)
        now = self._now()
        if not offer.issued < offer.expires <= offer.issued + MAX_LIFETIME_S:
            raise RemoteError("bad_message", "The offer lives for longer than is allowed.", peer=author)
        if offer.issued > now + MAX_SKEW_S or offer.expires <= now:
            raise RemoteError(
                "stale", f"The offer is not valid now (clock off by {offer.issued - now:.0f} s?).", peer=author
            )
        return Unchecked(offer, signed, envelope)

    def check(self, author: str, unchecked: Unchecked, *, newcomer: bool = False) -> Offer:
        """Its signatures: of the account, and of both sides of the binding."""
        offer = unchecked.offer
        keys.check(self._domains, unchecked.signed, offer.account, peer=author)
        self._check_binding(author, offer, unchecked.envelope, newcomer)
        return offer

    def _check_binding(self, author: str, offer: Offer, envelope: Envelope, newcomer: bool) -> None:
        if not 0 <= envelope.binding_version < 1 << 32:
            raise RemoteError("bad_binding", "The version of the binding does not fit 32 bits.", peer=author)
        binding = PeerBinding(peer_id_hash=offer.peer_id_hash, account=offer.account, version=envelope.binding_version)
        digest = self._domains.digest(binding)
        known = digest + envelope.account_signature + envelope.peer_signature
        good, limit = (self._good_newcomers, MAX_NEWCOMER_BINDINGS) if newcomer else (self._good, MAX_BINDINGS)
        if known in good:
            return
        try:
            signer = keys.recover(digest, envelope.account_signature)
        except ValueError as error:
            raise RemoteError("bad_binding", f"Signature of the account: {error}.", peer=author) from None
        if signer != offer.account:
            raise RemoteError("bad_binding", "The account did not sign the binding of this peer.", peer=author)
        if not verify_peer_signature(author, digest, envelope.peer_signature):
            raise RemoteError("bad_binding", "The peer did not sign the account back.", peer=author)
        while len(good) >= limit:
            good.pop(next(iter(good)))
        good[known] = None
