"""A whole chain in one process, for local networks and tests: pure Python, JSON-RPC over HTTP, shared by all nodes.

``python -m tallymesh_ledger.embedded_chain`` starts it. Importing this package loads no EVM.
"""

from __future__ import annotations

from tallymesh_ledger.embedded_chain.development import development_parameters

__all__ = ["development_parameters"]
