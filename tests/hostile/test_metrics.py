"""What a worker says beside its output is a stranger's bytes: it is written down, shown and read again by the payer."""

from __future__ import annotations

import msgspec
import pytest
import trio

from fakes import virtual
from fakes.chain import DOMAINS
from fakes.payer_scene import PRICE, PayerNode, Puppet, Scene
from fakes.virtual import run
from tallymesh.errors import RemoteError
from tallymesh.exchange import ReceiptRequest, Report
from tallymesh.messages import Receipt
from tallymesh_ledger import merkle

pytestmark = pytest.mark.trio(run=run)

METRICS = {
    "half a surrogate pair": b'{"\\ud800":1}',
    "half a pair in a value": b'{"a":"\\udc00"}',
    "a deep nest": b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "no text": b'{"\xff":1}',
    "no number": b'{"a":NaN}',
    "a number without end": b'{"a":' + b"9" * 5000 + b"}",
    "no object": b"[]",
    "not canonical": b'{"a": 1}',
    "twice the same name": b'{"a":1,"a":2}',
    "too many bytes": b'{"' + b"a" * 70_000 + b'":1}',
}


def receipt(puppet: Puppet, position: int, metrics: bytes) -> ReceiptRequest:
    """Signed and committed to as it should be: only the metrics are wrong."""
    request = puppet.receipt(position, b"output")
    opening = puppet.opening(position, b"output", metrics)
    message = Receipt(seat=puppet.seat, position=position, leaf=merkle.leaf(puppet.seat, position, opening))
    signed = puppet.key.sign(DOMAINS, message).body
    return msgspec.structs.replace(request, receipt=signed, opening=opening, report=Report(metrics=metrics))


@pytest.mark.trio(run=virtual.run)
async def test_a_payer_outlives_any_metrics_that_a_worker_commits_to(scene: Scene, payer: PayerNode) -> None:
    """Half a surrogate pair ended the payer's events, a deep nest its whole job: both were in the journal by then."""
    scene.crowd(3, works=False)
    puppet = Puppet(scene, 9)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=10), workers_max=1, max_price_wei=str(PRICE))
        await puppet.wait(2)
        for kind, metrics in METRICS.items():
            with pytest.raises(RemoteError) as refusal:
                await puppet.say(receipt(puppet, 0, metrics))
            assert refusal.value.code == "bad_metrics", kind
        await puppet.say(receipt(puppet, 0, b'{"accuracy":0.5,"seen":3}'))
        await trio.sleep(2)  # the events are written
        assert list(payer.service._driver(job).book.held(puppet.seat).seat.leaves) == [0]
        assert [row.metrics for row in payer.service.receipts(job)] == [{"accuracy": 0.5, "seen": 3}]
