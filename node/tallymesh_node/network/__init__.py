"""Peers: one libp2p host, requests, gossip, reachability, who is near. Roles know only `interfaces.PeerNetwork`."""

from __future__ import annotations

from tallymesh_node.network.gossip import Gossip, Verdict
from tallymesh_node.network.host import Libp2pNetwork, open_network
from tallymesh_node.network.keys import PeerKey, load_or_create, peer_id_hash, sign_as_peer, verify_peer_signature
from tallymesh_node.network.nearby import Nearby
from tallymesh_node.network.nearby_socket import open_nearby
from tallymesh_node.network.reachability import Reachability, check_reachability

__all__ = [
    "Gossip",
    "Libp2pNetwork",
    "Nearby",
    "PeerKey",
    "Reachability",
    "Verdict",
    "check_reachability",
    "load_or_create",
    "open_nearby",
    "open_network",
    "peer_id_hash",
    "sign_as_peer",
    "verify_peer_signature",
]
