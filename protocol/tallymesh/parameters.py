"""One table of the protocol's numbers, each with its reason. A network file may replace any of them: a development
network runs the same code with seconds for hours and small quorums. `on_chain` ones are constructor arguments of the
contracts and are read back from there; the rest is what peers hold each other to."""

from __future__ import annotations

import msgspec

HOUR = 3600
DAY = 24 * HOUR


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Times in seconds unless the name says otherwise, amounts in wei, rates in basis points (bp)."""

    # On chain
    slot_wei: int = 1_000 * 10**18  # stake of one slot: what an identity costs
    unbonding_s: int = 14 * DAY  # at least twice the sum of all windows, so that stake outlives every dispute
    lock_tail_s: int = DAY  # a seat's lock outlives the seat, so that fraud found late still costs
    class_delay_s: int = DAY  # a class set today counts tomorrow: nobody invents one for a draw he can see
    claim_window_s: int = DAY  # after `until`, for a worker that was not paid
    evidence_window_s: int = DAY  # the reserve's rest waits this long for unpaid auditors
    fee_bp: int = 200  # of the worker's credit; half of it is burned, half is the court's
    period_s: int = 7 * DAY  # of rewards: long enough that collecting is worth its gas, short enough to feel like pay
    emission_wei: int = 100_000 * 10**18  # rewards of one period at most; with `rewards_wei` enough for 1,000 of them
    rewards_wei: int = 100_000_000 * 10**18  # a tenth of the supply, put into Rewards at the deployment, never more
    lease_max_s: int = 48 * HOUR  # longest lease: bounds how long stake can be held by one seat
    claim_commit_s: int = 6 * HOUR  # for each of the three auditors that may be asked for a sample, to recompute it
    claim_open_s: int = 6 * HOUR  # for a worker's node that is off at night
    claim_reveal_s: int = 2 * HOUR  # nothing is computed any more
    claim_challenge_s: int = DAY  # for accusations, before a claim is paid
    court_quorum: int = 7  # accounts in the class besides the parties, or no quarrel begins
    court_panel: int = 7  # members that vote on a step
    court_appeal_panel: int = 31
    court_member_fee_wei: int = 10**17  # a tenth of a token: a step computed, and two transactions
    court_move_s: int = HOUR  # for one step of the bisection, of which there are twenty at most
    court_commit_s: int = 6 * HOUR
    court_reveal_s: int = 2 * HOUR
    court_appeal_s: int = 12 * HOUR
    claim_bond_wei: int = 10**18  # of both sides of a claim: the Court's fee, and the pay of a sample's auditors

    # Checking
    audit_rate_bp: int = 400  # 4 %: with the auditor's fee of 1.1 about 4.4 % of the wages
    auditor_fee_bp: int = 11_000  # of the unit price: fetching and waiting cost a little more than the work
    tally_units: int = 50  # a tally closes after this many units (100 for workers with history)
    tally_timed_units: int = 25  # fewer are not closed by time: one sample of few units would raise the rate
    tally_time_s: int = 6 * HOUR  # after this a tally closes with any number
    auditors_min: int = 3  # admissible accounts below which the payer's node recomputes
    audit_answers_max: int = 3  # auditors that answer UNAVAILABLE before the payer's node recomputes
    class_accounts_min: int = 5  # accounts in a numeric class before it counts
    class_stake_bp: int = 500  # share of all stake in a class before it counts
    block_age_max_s: int = HOUR  # of the block that a tally names
    exposure_work_ms: int = 60_000  # what a worker risks before its seat is on chain

    # Waiting (who waits, and what then: tallymesh_ledger.waits)
    lease_answer_s: float = 2.0
    unit_work_factor: int = 10  # a unit may take this many times its declared work
    unit_grace_s: float = 30.0  # and this much more: fetching inputs on a slow line
    secret_s: float = 60.0
    open_s: float = 10.0
    verdict_s: float = 10.0
    accept_s: float = 60.0
    tally_due_s: float = 60.0

    # Gossip
    offer_period_s: float = 20.0  # an offer is published again this often …
    offer_lifetime_s: int = 60  # … and forgotten after this long
    heartbeat_s: float = 1.0  # worker to payer while a seat is open: progress, logs, metrics
    heartbeats_missed: int = 5  # then the worker is given up

    # Chain
    confirmations: int = 2  # blocks after which a block counts as final
