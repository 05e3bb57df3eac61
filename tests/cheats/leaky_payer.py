"""A payer without the check: it hands the worker's end hash to the auditor together with the AuditRequest, before
anything was committed to. Only blindness is taken out; all else is the product. Lives with the tests.

``python -m cheats.leaky_payer`` with a node's environment.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tallymesh import exchange, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import AuditRequest, Body, ReceiptRequest, Source
from tallymesh.messages import AuditOrder, Receipt
from tallymesh_node.daemon import Node
from tallymesh_node.interfaces import Handler


class Leak(Body, frozen=True):
    NAME = "leak"
    audit_order: bytes
    end: bytes


class LeakyNode(Node):
    """Knows its own product only by what goes over the wire: receipts that come in, AuditRequests that go out."""

    def _open_roles(self, *arguments: Any) -> None:
        ask, serve = self.network.request, self.network.serve
        ends: dict[tuple[bytes, int], bytes] = {}  # (seat, position) -> what its worker says

        async def leaking(peer: Source, name: str, body: bytes, *, timeout_s: float) -> bytes:
            if name == AuditRequest.NAME:
                order = wire.decode(exchange.decode(body, AuditRequest).audit_order, AuditOrder).message
                leak = Leak(self.domains.digest(order), ends[order.seat, order.position])
                with suppress(RemoteError):  # honest auditors do not know this request
                    await ask(peer, Leak.NAME, exchange.encode(leak), timeout_s=timeout_s)
            return await ask(peer, name, body, timeout_s=timeout_s)

        def listening(name: str, handler: Handler) -> None:
            async def noted(peer: str, body: bytes) -> bytes:
                request = exchange.decode(body, ReceiptRequest)
                receipt = wire.decode(request.receipt, Receipt).message
                ends[receipt.seat, receipt.position] = request.opening.end
                return await handler(peer, body)

            serve(name, noted if name == ReceiptRequest.NAME else handler)

        self.network.request = leaking  # type: ignore[method-assign]
        self.network.serve = listening  # type: ignore[method-assign]
        super()._open_roles(*arguments)


if __name__ == "__main__":
    import trio

    from tallymesh_node import config
    from tallymesh_node.daemon import run_node

    trio.run(run_node, LeakyNode(config.load()))
