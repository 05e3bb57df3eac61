"""What the HTTP API needs of a node. The daemon gives the real one, the tests a fake; the API knows nothing behind it.

All functions that are not async answer from memory and never block.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tallymesh.api import (
    AuditView,
    EventView,
    JobView,
    NodeView,
    OfferView,
    ReceiptView,
    Terms,
    WithdrawRequest,
    WithdrawView,
)
from tallymesh.ids import BlobId
from tallymesh_node.blobs import BlobStore as Store
from tallymesh_node.blobs.room import Room


class PayerService(Protocol):
    """The jobs of this node's owner. An unknown job id is CallerError `no_job`, wherever one is taken."""

    async def submit(self, spec_blob: BlobId, terms: Terms) -> str:
        """Take the job on and return its id; matching goes on behind it. The spec and all blobs that it names are in
        the store already."""

    def jobs(self) -> Sequence[JobView]:
        """Newest first."""

    def job(self, job_id: str) -> JobView: ...

    def why(self, job_id: str) -> Any:
        """Why the job is where it is: something that msgspec can turn into JSON."""

    def events(self, job_id: str, after: int) -> Sequence[EventView]:
        """Events with a sequence over `after`, oldest first."""

    def events_kept(self, job_id: str) -> tuple[int, int]:
        """(sequence of the newest event that is no longer kept, sequence of the newest of all)."""

    async def wait_events(self, job_id: str, after: int) -> Sequence[EventView]:
        """The same, but waits until there is one."""

    def receipts(self, job_id: str) -> Sequence[ReceiptView]: ...

    def audits(self, job_id: str) -> Sequence[AuditView]: ...

    async def cancel(self, job_id: str) -> None:
        """Stop assigning, settle what was verified, refund the rest. Returns once that is under way; idempotent."""


class BlobWriter(Protocol):
    """A blob of known name and size that is arriving; it counts as nothing until `finish` says True."""

    def write(self, offset: int, data: bytes) -> None: ...

    def finish(self) -> bool: ...

    def discard(self) -> None: ...


class BlobStore(Protocol):
    """The part of the node's blob store that serves the owner's own programs."""

    def has(self, blob: BlobId) -> bool: ...

    def touch(self, blob: BlobId) -> None: ...

    def path(self, blob: BlobId) -> Path: ...

    def put(self, data: bytes) -> BlobId: ...

    def writer(self, name: BlobId, size: int) -> BlobWriter: ...


class NodeFacade(Protocol):
    """One running node as its API shows it."""

    def view(self) -> NodeView: ...

    def offers(self) -> Sequence[OfferView]: ...

    def ready(self) -> bool:
        """Whether the node does what its roles say: joined, and its first offer out where it works."""

    @property
    def payer(self) -> PayerService | None:
        """None where the node does not submit jobs."""

    @property
    def blobs(self) -> Store: ...

    @property
    def room(self) -> Room: ...

    async def withdraw(self, request: WithdrawRequest) -> WithdrawView:
        """Have the account's credit paid out by others, for a fee out of it. CallerError where this node may not sign
        for it, RemoteError `no_carrier` where nobody does it."""

    def stop(self) -> None:
        """Ask the daemon to end in good order; returns at once."""
