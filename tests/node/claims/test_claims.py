"""Claims from beginning to end: a silent payer, a worker that claims, auditors that the chain draws."""

from __future__ import annotations

from fakes.claim_scene import Story


async def test_an_unpaid_worker_gets_its_money_through_a_claim_exact_to_the_wei(story: Story) -> None:
    me = story.worker.key.address
    before = story.wealth(me)
    auditors = {auditor.key.address: story.wealth(auditor.key.address) for auditor in story.auditors}
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.ended())
        assert story.ended() == "paid"
        assert story.paid() == 6, "one unit was accepted and settled first, five were claimed"
        await story.until(lambda: not story.chain.contracts.claims.credit_of(me))
        await story.until(lambda: not story.chain.contracts.escrow.credit_of(me))
    assert story.wealth(me) - before == story.net(1) + story.net(5), "with the bond back"
    k = story.claim().k  # type: ignore[union-attr]
    gained = sum(story.wealth(account) - had for account, had in auditors.items())
    assert gained == k * (600 // k), "each sample's auditor earned its pay, out of the payer's bond"
    story.chain.check()
