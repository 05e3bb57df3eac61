"""What has to be at hand before a unit can run on this machine: its job's template, its inputs, its limits.

Used by workers, auditors and whoever recomputes a unit, so that all of them run it under the same conditions. This
module does not run anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from tallymesh import units
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId, blob_id, short
from tallymesh.messages import Order
from tallymesh.parameters import Parameters
from tallymesh.units import JobSpec, Unit
from tallymesh_node.interfaces import Blobs, Limits

SPECS_KEPT = 4  # decoded templates, up to 8 MiB each; a node rarely works for more jobs at one time
FETCHES = 8  # inputs of one unit fetched side by side: an aggregation has one for each participant


class Specs:
    """Templates by content id, decoded once and kept for a while."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._kept: OrderedDict[bytes, JobSpec] = OrderedDict()

    def get(self, template: bytes) -> JobSpec:
        """The template, which must be in the blob store. KeyError where it is not, RemoteError where it is none."""
        spec = self._kept.get(template)
        if spec is None:
            spec = self._kept[template] = units.decode_spec(self._blobs.get(BlobId(template)))
        self._kept.move_to_end(template)
        while len(self._kept) > SPECS_KEPT:
            self._kept.popitem(last=False)
        return spec

    async def obtain(
        self, template: bytes, given: bytes, sources: Sequence[Source], *, ticket: bytes, timeout_s: float
    ) -> JobSpec:
        """The template from the bytes `given` with a request, from the store, or fetched. RemoteError where it cannot
        be had or is not what the order names."""
        if given:
            if blob_id(given) != template:
                raise RemoteError("wrong_spec", "The job's template is not the one that its order names.")
            units.decode_spec(given)  # before it takes room on the disk
            self._blobs.put(given)
        else:
            await self._blobs.fetch(BlobId(template), sources, ticket=ticket, timeout_s=timeout_s)
        return self.get(template)


def names_of(unit: Unit) -> list[BlobId]:
    """Program and inputs, each once, in a fixed order."""
    return list(dict.fromkeys([BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)]))


def shared_names_of(unit: Unit) -> list[BlobId]:
    """Those that other units may name as well: an item of a map is given once."""
    items = {BlobId(item.blob) for item in unit.inputs if item.name == "item"}
    return [name for name in names_of(unit) if name not in items]


async def fetch_inputs(
    blobs: Blobs, unit: Unit, sources: Sequence[Source], *, ticket: bytes, timeout_s: float
) -> Mapping[BlobId, Path]:
    """Make program and inputs present. RemoteError `inputs` (with what was missing first) after `timeout_s`."""
    wanted = names_of(unit)
    missing = [name for name in wanted if not blobs.has(name)]
    problems: list[RemoteError] = []
    slots = trio.Semaphore(FETCHES)

    async def fetch(name: BlobId) -> None:
        async with slots:
            try:
                await blobs.fetch(name, sources, ticket=ticket, timeout_s=timeout_s)
            except RemoteError as error:
                problems.append(error)
                nursery.cancel_scope.cancel()

    with trio.move_on_after(timeout_s):
        async with trio.open_nursery() as nursery:
            for name in missing:
                nursery.start_soon(fetch, name)
    still = [name for name in wanted if not blobs.has(name)]
    if still:
        why = problems[0].sentence if problems else f"It did not arrive within {timeout_s:g} s."
        raise RemoteError("inputs", f"{len(still)} of {len(wanted)} inputs are missing, first {short(still[0])}: {why}")
    return {name: blobs.path(name) for name in wanted}


def wall_s(parameters: Parameters, work_ms: int) -> float:
    """The longest that a unit may run: a multiple of its declared work, which is in reference-seconds, and the grace
    that covers a slow disk and a cold sandbox."""
    return parameters.unit_work_factor * work_ms / 1000 + parameters.unit_grace_s


def limits_of(order: Order, work_ms: int, parameters: Parameters) -> Limits:
    """What the order pays for; where it says nothing, the defaults."""
    defaults = Limits()
    return Limits(
        memory_mib=order.memory_mib or defaults.memory_mib,
        disk_mib=order.disk_mib or defaults.disk_mib,
        wall_s=wall_s(parameters, work_ms),
    )
