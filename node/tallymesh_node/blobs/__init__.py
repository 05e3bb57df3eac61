"""Content-addressed bytes: a store on this machine, and transfer between peers."""

from __future__ import annotations

from tallymesh_node.blobs.store import BlobStore, BlobWriter
from tallymesh_node.blobs.transfer import BlobExchange, open_blobs

__all__ = ["BlobExchange", "BlobStore", "BlobWriter", "open_blobs"]
