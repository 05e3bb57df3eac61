"""Audits while the owner wants the machine: none is taken, and those that were taken are ended."""

from __future__ import annotations

from fakes.audit_scene import Auditor, AuditPayer, refused
from fakes.worker_scene import Scene


async def test_a_paused_node_takes_no_call_and_ends_what_it_took(scene: Scene) -> None:
    auditor = Auditor(scene)
    payer = AuditPayer(scene, auditor)
    async with auditor.run() as service:
        await payer.open_job()
        first, second = payer.drawn(payer.tally(2))
        await payer.call(position=first)
        service.away = "Paused by its owner."
        assert await refused(payer.ask(payer.request(position=second))) == "away"
        await payer.ask(payer.request(position=first))  # a repeat of what it took is still answered
        await payer.wait(lambda: payer.verdicts)
        service.away = ""
        await payer.ask(payer.request(position=second))
