"""Who needs which blobs of this node's store: what each role says, put together for blobs/room.py.

Seats, jobs and audits name what they need. A duty that the chain drew learns it from a party long after the draw, and
a case finds values as it goes on: for them counts what came or was used as long ago as the longest of them lasts.
"""

from __future__ import annotations

from tallymesh.parameters import Parameters
from tallymesh_ledger import windows
from tallymesh_node.auditor import AuditorService
from tallymesh_node.blobs.room import Holder
from tallymesh_node.blobs.sweeping import YOUNG_S
from tallymesh_node.claims import ClaimsService
from tallymesh_node.payer import PayerService
from tallymesh_node.quarrels import QuarrelsService
from tallymesh_node.worker import WorkerService


def holders_of(
    parameters: Parameters,
    *,
    worker: WorkerService | None,
    auditor: AuditorService | None,
    payer: PayerService | None,
    claims: ClaimsService | None,
    quarrels: QuarrelsService | None,
) -> list[Holder]:
    found = []
    if worker is not None:
        found.append(Holder(name="seats of jobs that run here", now=worker.needed))
        found.append(Holder(name="evidence of seats until nobody can ask for it", past=worker.held))
    if auditor is not None:
        found.append(Holder(name="audits under way", now=auditor.needed))
    if payer is not None:
        found.append(Holder(name="your jobs that run", now=payer.needed))
        found.append(Holder(name="results of your jobs", past=payer.results, firm=False))
    if claims is not None:
        open_claims = claims
        found.append(
            Holder(
                name="claims on chain",
                now=claims.needed,
                lately_s=lambda: 0.0 if open_claims.idle else YOUNG_S,
            )
        )
    if quarrels is not None:
        cases = quarrels
        found.append(
            Holder(
                name="cases before the Court",
                now=quarrels.needed,
                lately_s=lambda: 0.0 if cases.idle else float(windows.case_s(parameters)),
            )
        )
    return found
