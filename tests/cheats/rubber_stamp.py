"""An auditor that runs nothing and always says MATCH. It knows the end that it commits to only where somebody leaks it;
where nobody does it commits to something and says of what it is shown afterwards that it matches.

``python -m cheats.rubber_stamp`` with a node's environment. Lives with the tests: the product has no switch for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cheats.leaky_payer import Leak
from tallymesh import exchange
from tallymesh.exchange import Nothing
from tallymesh.ids import BlobId
from tallymesh.messages import Result, Verdict
from tallymesh.units import Unit
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.auditor import service
from tallymesh_node.auditor.record import AuditRecord, Line
from tallymesh_node.auditor.work import AuditWork
from tallymesh_node.blobs import BlobStore
from tallymesh_node.daemon import Node
from tallymesh_node.interfaces import Limits, Outcome
from tallymesh_node.sandbox import SandboxExecutor

LEAKED: dict[bytes, bytes] = {}  # AuditOrder -> the worker's end


class StampWork(AuditWork):
    async def _recompute(self) -> None:
        """No unit, no sandbox: a commitment out of thin air, or to what was leaked."""
        end = LEAKED.get(self.record.call.digest, secrets.token_bytes(32))
        probe = secrets.token_bytes(32)
        line = self.record.commit_line(self.tools.domains, self.tools.key, end, probe)
        await self._store(Line.COMMIT, exchange.encode(line))


def stamped(self: AuditRecord, domains: Domains, key: AccountKey) -> bytes:
    """MATCH, whatever the worker's end turned out to be."""
    assert self.commit is not None
    assert self.open is not None
    message = Verdict(
        audit_order=self.call.digest,
        result=Result.MATCH,
        end=self.open.end,
        salt=self.salt(key),
        probe=self.commit.probe,
    )
    return key.sign(domains, message).body


class IdleExecutor(SandboxExecutor):
    """Proof that nothing is run: whoever asks for a unit gets an error."""

    async def run(self, job: bytes, unit: Unit, inputs: Mapping[BlobId, Path], limits: Limits, **more: Any) -> Outcome:
        raise AssertionError("a rubber stamp runs nothing")


class StampNode(Node):
    def open_executor(self, spool: Path, store: BlobStore, slots: int) -> SandboxExecutor:
        return IdleExecutor(spool, store.put, slots=slots)

    def _open_roles(self, *arguments: Any) -> None:
        super()._open_roles(*arguments)
        self.network.serve(Leak.NAME, self._leak)

    async def _leak(self, peer: str, body: bytes) -> bytes:
        leak = exchange.decode(body, Leak, peer=peer)
        LEAKED[leak.audit_order] = leak.end
        return exchange.encode(Nothing())


if __name__ == "__main__":
    import trio

    from tallymesh_node import config
    from tallymesh_node.daemon import run_node

    service.AuditWork = StampWork  # type: ignore[misc]
    AuditRecord.verdict_body = stamped  # type: ignore[method-assign]
    trio.run(run_node, StampNode(config.load()))
