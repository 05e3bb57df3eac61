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
        claim_commit_s=6,
        claim_open_s=4,
        claim_reveal_s=4,
        claim_challenge_s=3,
        court_quorum=3,
        court_panel=3,
        court_appeal_panel=5,
        court_member_fee_wei=10**15,
        court_move_s=4,
        court_commit_s=8,
        court_reveal_s=4,
        court_appeal_s=4,
        claim_bond_wei=10**16,
        class_accounts_min=2,
        exposure_work_ms=60_000,
        offer_period_s=3.0,
        offer_lifetime_s=15,
        unit_grace_s=15.0,
        tally_time_s=60,
        confirmations=1,
    )
