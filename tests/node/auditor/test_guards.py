"""One case for each check of an auditor that the other tests pass by."""

from __future__ import annotations

import msgspec

from fakes.audit_scene import Auditor, AuditPayer, refused
from tallymesh.plan import Plan
from tallymesh.units import Stage


async def test_a_unit_that_declares_more_work_than_its_lease_pays_for_is_refused(
    auditor: Auditor, payer: AuditPayer
) -> None:
    """Its auditor would be paid for the lease's work and do the stage's."""
    payer.spec = msgspec.structs.replace(payer.spec, stages=(Stage("map", "m:f", b"{}", 2000),))
    payer.order = payer._order()
    payer.tasks = list(Plan(payer.spec).ready())
    async with auditor.run():
        await payer.open_job()
        assert await refused(payer.ask(payer.request())) == "foreign_unit"
        assert auditor.executor.ran == []
