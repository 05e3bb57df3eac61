"""A job that the escrow has ended and refunded while this node's journal says that it runs: the journal is an old one.

A payer whose folder was put back from a backup would look for workers, whom nothing can pay any more. One look at the
chain when the driver begins tells it. This module does not know how the folder came to be old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallymesh.api import Problem

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

CODE = "ended_before"
SENTENCE = "The escrow has settled and refunded this job already: this node's folder is older than that."
REMEDY = "A backup was put back, it seems. Order the job again if its result is not in the folder that it replaced."


class Outlived:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._looked = False

    def problems(self) -> list[Problem]:
        return []

    def reconcile(self) -> None:
        book = self.driver.book
        if not self._looked and book.ending is None and book.settled is None:
            self.driver.doing.start(("outlived",), self._look)

    async def _look(self) -> None:
        state = await self.driver.tools.chain.job_state(self.driver.book.id)
        self._looked = True
        if state is not None and state.free + state.reserve + state.open_seats == 0:
            await self.driver.closing.fail(CODE, SENTENCE, "", REMEDY)
