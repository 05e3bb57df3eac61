"""What every part of the auditor needs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from tallymesh_node.tools import UnitTools

log = logging.getLogger("tallymesh.auditor")


@dataclass(frozen=True, kw_only=True)
class Tools(UnitTools):
    clock: Callable[[], float]

    @staticmethod
    def sandbox_of(job: bytes) -> bytes:
        """The sandbox in which this node audits a job: not the one in which it may work for the same job, because the
        two end at different times and neither may see what the other left."""
        return blake3(b"tallymesh.audit.sandbox.1" + job).digest()
