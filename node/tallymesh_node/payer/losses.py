"""What this node's own disk lost of a job: the worker that cannot get it is not to blame, nor is the next one.

A blob that changed on disk is dropped by the store when it is read. Where a worker still has it (an output that it
made), units fetch it there; else nobody can run them any more, and the job ends by saying so. What was done is paid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh.units import Unit
from tallymesh_node.unit_inputs import names_of

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

CODE = "input_lost"
REMEDY = "Check this machine's disk, then order the job again: what was computed so far is paid and stays."


def is_here(driver: JobDriver, name: bytes) -> bool:
    """Whether the store has it and the file is where the store thinks it is."""
    blobs = driver.tools.blobs
    return blobs.has(BlobId(name)) and blobs.path(BlobId(name)).exists()


def missing(driver: JobDriver, unit: Unit) -> list[BlobId]:
    """Inputs of the unit that are not here: whoever made them may have them still."""
    return [name for name in names_of(unit) if not is_here(driver, name)]


def lost(driver: JobDriver, unit: Unit) -> list[BlobId]:
    """Inputs of the unit that are not here and that no worker made."""
    return [name for name in missing(driver, unit) if name not in driver.book.makers]


async def end_without(driver: JobDriver, names: list[BlobId]) -> None:
    """The job fails, and says which side lost what."""
    count = "An input" if len(names) == 1 else f"{len(names)} inputs"
    sentence = f"{count} of the job (blob {names[0].hex()[:12]}) cannot be read from this node's own disk any more."
    await driver.closing.fail(CODE, sentence, "", REMEDY)


async def template(driver: JobDriver) -> bytes:
    """The job's template. LocalError `input_lost` where it cannot be read any more: then the job has ended."""
    name = BlobId(driver.book.order.template)
    if not is_here(driver, name):
        await end_without(driver, [name])
        raise LocalError(CODE, "The job's template cannot be read from this node's own disk any more.", remedy=REMEDY)
    return driver.tools.blobs.get(name)
