"""What is wrong with this machine as a node, and what mends it: each thing is tried, not guessed at. `tallymesh doctor`
shows it, also where no node runs or none can start."""

from __future__ import annotations

from tallymesh_node.doctor.examination import examine
from tallymesh_node.doctor.findings import Finding

__all__ = ["Finding", "examine"]
