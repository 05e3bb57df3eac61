"""A contributor that computes nothing and gives one answer to every item of a map: well formed, quick, and wrong.

An ordinary node whose executor is lazy; as an auditor it is honest. Lives with the tests: the product has no switch for
it. Started like a node: ``python -m cheats.lazy_worker`` with the node's environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trio

from tallymesh import values
from tallymesh.ids import BlobId
from tallymesh.units import Unit
from tallymesh_node.blobs import BlobStore
from tallymesh_node.daemon import Node
from tallymesh_node.interfaces import Limits, OnLine, OnMetric, Outcome
from tallymesh_node.sandbox import SandboxExecutor

PRETENCE_S = 0.3  # that a unit seems to take


class LazyExecutor(SandboxExecutor):
    def __init__(self, spool: Path, store: BlobStore, *, slots: int) -> None:
        super().__init__(spool, store.put, slots=slots)
        self._store = store

    async def run(
        self,
        job: bytes,
        unit: Unit,
        inputs: Mapping[BlobId, Path],
        limits: Limits,
        *,
        probe_key: bytes = b"",
        on_line: OnLine | None = None,
        on_metric: OnMetric | None = None,
    ) -> Outcome:
        if probe_key:
            return await super().run(
                job, unit, inputs, limits, probe_key=probe_key, on_line=on_line, on_metric=on_metric
            )
        await trio.sleep(PRETENCE_S)
        answer = self._store.put(values.encode(0, what="answer"))
        return Outcome(output=answer, metrics=b"{}", seconds={}, cpu_s=0.0, steps=1)


class LazyNode(Node):
    def open_executor(self, spool: Path, store: BlobStore, slots: int) -> SandboxExecutor:
        return LazyExecutor(spool, store, slots=slots)


if __name__ == "__main__":
    from tallymesh_node import config
    from tallymesh_node.daemon import run_node

    trio.run(run_node, LazyNode(config.load()))
