"""Quarrels before the Court: who was cheated accuses, who is accused defends itself, and members that the chain drew
say who is right.

Everything follows from journal and chain: a node that was off for a part of a window goes on where the chain is.
"""

from tallymesh_node.quarrels.service import QuarrelsService

__all__ = ["QuarrelsService"]
