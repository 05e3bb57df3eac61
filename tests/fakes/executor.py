"""Units as plain functions in this process: no sandbox, no torch, the same contract as the real executor.

A unit's output follows from its bytes alone (or from the function that a test names for its entry), so two honest
executors agree and a changed input changes everything downstream. Time is trio's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import trio
from blake3 import blake3

from tallymesh.ids import ZERO32, BlobId
from tallymesh.units import Unit, encode, unit_id
from tallymesh_node.interfaces import Blobs, Failure, Limits, OnLine, OnMetric, Outcome

OUTPUT_BYTES = 96  # of the default function: small enough to be inlined

Run = Callable[[Unit, Mapping[BlobId, bytes]], tuple[bytes, dict[str, float]]]  # (output, metrics)


def honest(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    """Bytes that depend on the unit and on the content of every input."""
    digest = blake3(encode(unit) + b"".join(inputs[key] for key in sorted(inputs)))
    loss = int.from_bytes(digest.digest(4), "big") / (1 << 32)
    return digest.digest(OUTPUT_BYTES), {"loss": loss}


class FakeExecutor:
    """`seconds` a unit takes, by entry ("" for all others); `functions` replace `honest` by entry; `fail` names the
    Failure that a unit (by id, or by entry) ends with; `lines` are logged by every unit."""

    def __init__(
        self, blobs: Blobs, *, seconds: Mapping[str, float] | None = None, lines: tuple[str, ...] = ()
    ) -> None:
        self.blobs = blobs
        self.seconds = dict(seconds or {"": 1.0})
        self.functions: dict[str, Run] = {}
        self.fail: dict[bytes | str, Failure] = {}
        self.lines = lines
        self.ran: list[bytes] = []  # unit ids, in order of their start
        self.running = 0
        self.running_max = 0
        self.prepared: list[bytes] = []
        self.closed: list[bytes] = []

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
        name = unit_id(unit)
        wanted = {BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)}
        missing = wanted - set(inputs)
        if missing:
            raise Failure("inputs", f"{len(missing)} inputs of unit {name[:4].hex()} were not given.")
        try:
            content = {key: inputs[key].read_bytes() for key in wanted}
        except FileNotFoundError as error:  # room was made meanwhile
            raise Failure("inputs", f"An input is not here: {error.filename}.") from None
        for key, data in content.items():
            assert blake3(data).digest() == key, "an input is not what its name says"
        self.ran.append(name)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            for line in self.lines:
                if on_line:
                    on_line(line)
            await trio.sleep(self.seconds.get(unit.entry, self.seconds.get("", 0.0)))
        finally:
            self.running -= 1
        failure = self.fail.get(name) or self.fail.get(unit.entry)
        if failure is not None:
            raise failure
        output, metrics = self.functions.get(unit.entry, honest)(unit, content)
        if on_metric:
            for key, value in metrics.items():
                on_metric(key, value)
        encoded = json.dumps(metrics, sort_keys=True, separators=(",", ":")).encode()
        probe = blake3(output, key=probe_key).digest() if probe_key else ZERO32
        return Outcome(
            output=self.blobs.put(output),
            metrics=encoded,
            seconds={"run": self.seconds.get(unit.entry, self.seconds.get("", 0.0))},
            cpu_s=0.0,
            steps=1,
            probe=probe,
        )

    async def prepare(self, job: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.prepared.append(job)

    async def close_job(self, job: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.closed.append(job)
