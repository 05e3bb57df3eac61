"""Claims on chain: a worker that is not paid claims what it is owed, and auditors that the chain drew say who is right.

Everything follows from journal and chain: a node that was off for a part of a window goes on where the chain is.
"""

from tallymesh_node.claims.service import ClaimsService

__all__ = ["ClaimsService"]
