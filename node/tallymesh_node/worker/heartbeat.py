"""A sign of life to the payer while a seat is open: what runs, log lines, metrics. Nothing here is signed or kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from tallymesh import exchange
from tallymesh.errors import RemoteError
from tallymesh.exchange import MAX_LINES, ProgressRequest
from tallymesh_node.worker.tools import Tools, Work

REQUEST_S = 5.0
MAX_METRICS = 200  # of one report
MAX_LINE = 1_000  # characters of a line that are passed on: 200 such lines stay under one body in any script
MAX_NAME = 64  # characters of a metric's name, as tallymesh.log allows
SLOW_AFTER = 20  # reports in a row that were not answered: the payer has given us up long before
SLOW_S = 15.0
QUICK_S = 0.25  # between two reports at least, where a unit that ended has something to say

System = Callable[[], Mapping[str, float]]
T = TypeVar("T")


async def heartbeat(tools: Tools, work: Work, system: System) -> None:
    """Until cancelled."""
    sequence = missed = 0
    while True:
        sequence += 1
        lines, metrics = _take(work.lines, MAX_LINES), _take(work.metrics, MAX_METRICS)
        report = ProgressRequest(
            seat=work.record.id,
            sequence=sequence,
            running=tuple(sorted(work.running)),
            lines=tuple((position, printable(line, MAX_LINE)) for position, line in lines),
            metrics=tuple((position, printable(name, MAX_NAME), value) for position, name, value in metrics),
            system=dict(system()),
        )
        began = trio.current_time()
        try:
            body = exchange.encode(report)
            await tools.network.request(work.record.payer, report.NAME, body, timeout_s=REQUEST_S)
            work.heard()
            missed = 0
        except RemoteError as error:
            missed = missed + 1 if error.code in ("unreachable", "timeout") else SLOW_AFTER
            _put_back(work.lines, lines)
            _put_back(work.metrics, metrics)
        period = tools.parameters.heartbeat_s if missed < SLOW_AFTER else SLOW_S
        if not missed:  # a seat may be over before the next one is due: what its last unit said would be lost
            await work.heartbeat_bell.wait(max(0.0, began + period - trio.current_time()))
            period = min(period, QUICK_S)
        await trio.sleep(max(0.0, began + period - trio.current_time()))


def printable(text: str, most: int) -> str:
    """The first `most` characters; what cannot be encoded (lone surrogates from a program's output) is replaced."""
    return text[:most].encode("utf-8", "replace").decode()


def _take(waiting: deque[T], most: int) -> list[T]:
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]


def _put_back(waiting: deque[T], taken: list[T]) -> None:
    """In front again, as far as there is room: newer ones stay."""
    assert waiting.maxlen is not None
    room = waiting.maxlen - len(waiting)
    waiting.extendleft(reversed(taken[max(0, len(taken) - room) :]))
