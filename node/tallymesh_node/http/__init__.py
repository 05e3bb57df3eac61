"""The node's local HTTP API over aiohttp (docs/API.md): for the owner's own programs, on loopback, behind a token."""

from tallymesh_node.http.facade import BlobStore, NodeFacade, PayerService
from tallymesh_node.http.server import ApiServer

__all__ = ["ApiServer", "BlobStore", "NodeFacade", "PayerService"]
