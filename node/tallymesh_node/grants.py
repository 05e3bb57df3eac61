"""Which peers may fetch which blobs from this node, because it has just answered a request of theirs that needs them.

The ticket is that request: a peer shows it when it fetches. In memory only, so that after a restart a peer asks again.
Who is answered, and with what, is decided by the doors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set

from tallymesh.ids import BlobId


class Grants:
    def __init__(self) -> None:
        self._blobs: OrderedDict[tuple[str, bytes], Set[BlobId]] = OrderedDict()  # (peer, ticket) -> blobs

    def __repr__(self) -> str:
        return f"<Grants {len(self._blobs)}>"

    def give(self, peer_id: str, ticket: bytes, blobs: Set[BlobId], *, most: int) -> None:
        """The oldest go where there are more than `most`."""
        self._blobs[peer_id, ticket] = blobs
        self._blobs.move_to_end((peer_id, ticket))
        while len(self._blobs) > most:
            self._blobs.popitem(last=False)

    def holds(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        return blob in self._blobs.get((peer_id, ticket), ())
