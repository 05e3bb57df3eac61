"""Content-addressed bytes: a store on this machine, and transfer between peers."""

from __future__ import annotations

from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.blobs.transfer import BlobExchange, open_blobs
from tallymesh_node.blobs.writer import BlobWriter

__all__ = ["BlobExchange", "BlobStore", "BlobWriter", "open_blobs"]
