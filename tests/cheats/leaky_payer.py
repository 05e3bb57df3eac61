"""A payer without the check: it hands the worker's end hash to the auditor together with the AuditRequest, before
anything was committed to. Only blindness is taken out; all else is the product. Lives with the tests.

``python -m cheats.leaky_payer`` with a node's environment.
"""

from __future__ import annotations

from contextlib import suppress

from tallymesh import exchange
from tallymesh.errors import RemoteError
from tallymesh.exchange import Body
from tallymesh_ledger.audit import CallState
from tallymesh_node.payer import driver
from tallymesh_node.payer.auditing import Auditing
from tallymesh_node.payer.book import Calling


class Leak(Body, frozen=True):
    NAME = "leak"
    audit_order: bytes
    end: bytes


class LeakyAuditing(Auditing):
    async def _send(self, calling: Calling, digest: bytes) -> None:
        source = self.driver.tools.offers.source_of(calling.call.auditor)
        if source is not None and calling.call.state is CallState.ORDERED:
            opening = calling.held.seat.openings[calling.order.message.position]
            leak = exchange.encode(Leak(digest, opening.end))
            with suppress(RemoteError):  # honest auditors do not know this request
                await self.driver.tools.network.request(source, Leak.NAME, leak, timeout_s=10.0)
        await super()._send(calling, digest)


if __name__ == "__main__":
    import trio

    from tallymesh_node import config
    from tallymesh_node.daemon import Node, run_node

    driver.Auditing = LeakyAuditing  # type: ignore[attr-defined]
    trio.run(run_node, Node(config.load()))
