"""What went through the network, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """What went through, since the start. Read by the node's metrics; plain integers, never reset."""

    bytes_sent: int = 0  # on the wire, frames of the multiplexer included
    bytes_received: int = 0
    dials: int = 0
    dials_failed: int = 0
    connections_displaced: int = 0  # inbound ones that made room for others
    requests_sent: int = 0
    requests_served: int = 0
    requests_refused: int = 0
    gossip_published: int = 0
    gossip_received: int = 0  # accepted by the validator
    gossip_ignored: int = 0
    gossip_rejected: int = 0
    gossip_dropped: int = 0  # accepted, but nobody drained the queue
    blob_bytes_sent: int = 0
    blob_bytes_received: int = 0
    blob_bytes_found: int = 0  # chunks that were not fetched: another blob had them

    @property
    def gossip_messages(self) -> int:
        return self.gossip_published + self.gossip_received
