"""/metrics in Prometheus' text format: read from the node's view when it is asked, so nothing is counted twice.

The registry is our own: whatever a library registers in the global one stays out. Names end in their unit; what only
grows ends in `_total`. This module does not know what the numbers mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import prometheus_client
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from tallymesh_node.http.facade import NodeFacade
from tallymesh_node.money_watch import FIGURES

MAX_COUNTERS: Final = 500  # series of one node: more would be a bug that makes one per job
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class NodeCollector(Collector):
    def __init__(self, node: NodeFacade) -> None:
        self._node = node

    def describe(self) -> Iterable[Metric]:
        return ()  # the node need not be up when the registry is made

    def collect(self) -> Iterable[Metric]:
        view = self._node.view()
        info = {"version": view.version, "network": view.network, "account": view.account, "peer_id": view.peer_id}
        yield InfoMetricFamily("tallymesh_node", "Who this node is.", info)
        yield GaugeMetricFamily("tallymesh_start_time_seconds", "When the node started, Unix time.", view.started)
        yield GaugeMetricFamily("tallymesh_peers", "Peers connected.", view.peers)
        yield GaugeMetricFamily("tallymesh_slots", "Slots of stake.", view.slots)
        yield GaugeMetricFamily("tallymesh_ready", "1 where the node does what its roles say.", self._node.ready())
        yield GaugeMetricFamily("tallymesh_offers_known", "Offers in this node's book.", len(self._node.offers()))
        with suppress(RuntimeError):  # asked outside of the event loop
            tasks = trio.lowlevel.current_statistics().tasks_living
            yield GaugeMetricFamily(
                "tallymesh_tasks", "Tasks of the event loop: one that never ends shows here.", tasks
            )
        problems = GaugeMetricFamily("tallymesh_problem", "1 for each problem that the node has.", labels=["code"])
        for problem in view.problems:
            problems.add_metric([problem.code], 1)
        yield problems
        if self._node.payer is not None:
            jobs = GaugeMetricFamily("tallymesh_jobs", "Jobs that this node drives or drove.", labels=["status"])
            for status, count in sorted(Counter(job.status for job in self._node.payer.jobs()).items()):
                jobs.add_metric([status], count)
            yield jobs
        for name, value in sorted(view.counters.items())[:MAX_COUNTERS]:
            if not _NAME.fullmatch(name):
                continue
            if name.endswith("_total"):
                yield CounterMetricFamily(f"tallymesh_{name.removesuffix('_total')}", _help(name), value)
            else:
                yield GaugeMetricFamily(f"tallymesh_{name}", _help(name), value)


class Metrics:
    def __init__(self, node: NodeFacade) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(NodeCollector(node))
        prometheus_client.ProcessCollector(registry=self._registry)
        self._requests = prometheus_client.Counter(
            "tallymesh_http_requests_total", "Requests to the HTTP API.", ["method", "status"], registry=self._registry
        )

    def count(self, method: str, status: int) -> None:
        # Anybody can send any method: an unknown one must not make a series of its own.
        known = method if method in ("GET", "HEAD", "PUT", "POST") else "other"
        self._requests.labels(known, f"{status // 100}xx").inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _help(name: str) -> str:
    return FIGURES.get(name) or name.removesuffix("_total").replace("_", " ").capitalize() + "."
