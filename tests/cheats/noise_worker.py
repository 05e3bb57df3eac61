"""A contributor that returns work it did not do: its last honest update plus noise of the same norm.

Well formed and finite, so that no check of the form can see it; only a recomputation convicts. It is an ordinary node
whose executor lies for client units after the first (``--at-once``: for the first, too); as an auditor it is honest.
Lives with the tests: the product has no switch for it. Started like a node: ``python -m cheats.noise_worker`` with the
node's environment.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tallymesh.ids import BlobId
from tallymesh.units import Unit
from tallymesh_node.blobs import BlobStore
from tallymesh_node.daemon import Node
from tallymesh_node.interfaces import Limits, OnLine, OnMetric, Outcome
from tallymesh_node.sandbox import SandboxExecutor

FLOATS = {"F32": np.float32, "F64": np.float64}


class NoisyExecutor(SandboxExecutor):
    """Honest for audits, aggregation and (unless `at_once`) the first client unit; after that it answers at once, from
    memory."""

    def __init__(self, spool: Path, store: BlobStore, *, slots: int, at_once: bool) -> None:
        super().__init__(spool, store.put, slots=slots)
        self._store = store
        self._from_the_first = at_once
        self._last: tuple[bytes, float, Outcome] | None = None
        self._noise = np.random.default_rng(7)

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
        lies = unit.entry == "tallymesh:client" and not probe_key
        if lies and self._last is not None:
            return self._make_up(*self._last)
        outcome = await super().run(
            job, unit, inputs, limits, probe_key=probe_key, on_line=on_line, on_metric=on_metric
        )
        if lies:
            output = self._store.get(outcome.output)
            self._last = output, self._norm(output, inputs[unit.input("state")].read_bytes()), outcome
            if self._from_the_first:
                return self._make_up(*self._last)
        return outcome

    def _make_up(self, update: bytes, norm: float, outcome: Outcome) -> Outcome:
        header, body = split(update)
        noise = {name: self._noise.standard_normal(size(entry)) for name, entry in weights(header)}
        length = float(np.sqrt(sum(float((part**2).sum()) for part in noise.values())))
        data = bytearray(body)
        for name, entry in weights(header):
            begin, end = entry["data_offsets"]
            honest = np.frombuffer(body[begin:end], FLOATS[entry["dtype"]])
            data[begin:end] = (honest + noise[name] * (norm / length)).astype(honest.dtype).tobytes()
        made_up = self._store.put(update[: len(update) - len(body)] + bytes(data))
        return Outcome(output=made_up, metrics=outcome.metrics, seconds=outcome.seconds, cpu_s=0.0, steps=outcome.steps)

    @staticmethod
    def _norm(update: bytes, state: bytes) -> float:
        """How far the honest update went from where it started."""
        after, before = split(update), split(state)
        total = 0.0
        for name, entry in weights(after[0]):
            old = before[0][name]
            new = np.frombuffer(after[1][slice(*entry["data_offsets"])], FLOATS[entry["dtype"]])
            total += float(
                ((new - np.frombuffer(before[1][slice(*old["data_offsets"])], FLOATS[old["dtype"]])) ** 2).sum()
            )
        return float(np.sqrt(total))


def split(data: bytes) -> tuple[dict[str, dict], bytes]:
    """Header and body of a safetensors blob."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def weights(header: dict[str, dict]) -> list[tuple[str, dict]]:
    return [(name, entry) for name, entry in sorted(header.items()) if entry.get("dtype") in FLOATS and size(entry)]


def size(entry: dict) -> int:
    return int(np.prod(entry["shape"], dtype=np.int64))


class NoisyNode(Node):
    def open_executor(self, spool: Path, store: BlobStore, slots: int) -> SandboxExecutor:
        return NoisyExecutor(spool, store, slots=slots, at_once="--at-once" in sys.argv)


if __name__ == "__main__":
    import trio

    from tallymesh_node import config
    from tallymesh_node.daemon import run_node

    trio.run(run_node, NoisyNode(config.load()))
