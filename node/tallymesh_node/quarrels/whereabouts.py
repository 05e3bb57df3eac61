"""Where the parties of quarrels are reached that publish no offer: payers, above all. They tell the members themselves.

What is told is signed by the account and comes from the peer that it names; it is a place to ask and nothing more:
what is served there is held against the chain. Bounded, and forgotten with the process: it is told again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import trio

from tallymesh import exchange, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import Nothing, Source, WhereRequest
from tallymesh.messages import PeerBinding
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.interfaces import PeerNetwork
from tallymesh_node.network import peer_id_hash

MAX_KNOWN = 256  # accounts that said where they are: the parties of some hundred cases
MAX_ADDRESSES, MAX_ADDRESS = 8, 256  # of one peer; characters of one address
BINDING_VERSION = 1  # which peer key an account uses now is for the offers to say


class Whereabouts:
    def __init__(
        self,
        network: PeerNetwork,
        domains: Domains,
        key: AccountKey,
        *,
        hash_of: Callable[[str], bytes] = peer_id_hash,
    ) -> None:
        self.network = network
        self.domains = domains
        self.key = key
        self.hash_of = hash_of
        self._known: OrderedDict[bytes, Source] = OrderedDict()

    def open(self) -> None:
        self.network.serve(WhereRequest.NAME, self.told)

    def source_of(self, account: bytes) -> Source | None:
        return self._known.get(account)

    def of_mine(self) -> bytes:
        """The request that says where this node is."""
        message = PeerBinding(
            peer_id_hash=self.hash_of(self.network.peer_id), account=self.key.address, version=BINDING_VERSION
        )
        signed = self.key.sign(self.domains, message)
        return exchange.encode(WhereRequest(signed.body, tuple(self.network.addresses)[:MAX_ADDRESSES]))

    async def told(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        request = exchange.decode(body, WhereRequest, peer=peer)
        signed = wire.decode(request.binding, PeerBinding, peer=peer)
        binding: PeerBinding = signed.message
        keys.check(self.domains, signed, binding.account, peer=peer)
        if binding.peer_id_hash != self.hash_of(peer):
            raise RemoteError("bad_binding", "The account speaks through another peer than this one.", peer=peer)
        if len(request.addresses) > MAX_ADDRESSES or any(len(each) > MAX_ADDRESS for each in request.addresses):
            raise RemoteError("bad_message", "Too many addresses, or too long ones.", peer=peer)
        self._known[binding.account] = Source(peer, request.addresses)
        self._known.move_to_end(binding.account)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return exchange.encode(Nothing())
