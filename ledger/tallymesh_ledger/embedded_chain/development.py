"""The parameters of a local network: the same code and the same checks, with seconds where the world has hours."""

from __future__ import annotations

from tallymesh.parameters import Parameters


def development_parameters() -> Parameters:
    """Short windows and small quorums, so that a whole job with its refund fits into a minute."""
    return Parameters(
        unbonding_s=60,
        lock_tail_s=5,
        class_delay_s=1,
        claim_window_s=5,
        evidence_window_s=2,
        period_s=30,
        class_accounts_min=2,
        exposure_work_ms=60_000,
        offer_period_s=3.0,
        offer_lifetime_s=15,
        tally_time_s=60,
        confirmations=1,
    )
