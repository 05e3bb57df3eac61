"""Bar 15: gas of a receipt, 256 of them settled in one job with 4 workers, seats included.

Counted by an EVM on the checked-in bytecode: machine and neighbours do not show. Beside it the other usual
transactions, and what the calls of a quarrel cost by their record (tests/contracts holds both to 5 %).
"""

from __future__ import annotations

import json
from pathlib import Path

from bench import Result

from fakes.contract_world import Exact, World, gas_report

WORKERS, RECEIPTS = 4, 256
BAR = 2000.0  # gas a receipt
SETTLE_BAR = 60_000  # one item for any number of units
# The other bars of the same row, for what a quarrel takes from its beginning to its end.
CLAIM_BAR, DISPUTE_BAR, MEMBER_BAR = 900_000, 400_000, 120_000
SAMPLES, EXCHANGES = 16, 10  # of the recorded claim; 1,024 steps
QUARRELS = Path(__file__).resolve().parents[3] / "tests/contracts/gas_quarrel.json"


def run(folder: Path, *, quick: bool) -> Result:
    report = gas_report(World(Exact()), workers=WORKERS, positions=RECEIPTS // WORKERS)
    whole = report["open, 4 seats, by approval"] + report["finish, 4 workers, all units paid"]
    audited = report["open, 4 seats, by approval"] + report["finish, 4 workers, 16 audits"]
    return Result(
        whole / RECEIPTS,
        "gas",
        BAR,
        details={
            "whole_job": whole,
            "with_16_audits_a_receipt": round(audited / RECEIPTS),
            "settle_ok": report["settle, one Accept for any number of units"] <= SETTLE_BAR,
            **report,
            **_quarrels(json.loads(QUARRELS.read_text())),
        },
    )


def _quarrels(gas: dict[str, int]) -> dict[str, int | bool]:
    """What whole quarrels cost, all their parties together, beside their bars; then each call's record."""
    claimed = ("claim, 100 units, 7 witnesses", "capture", "conclude, decision over 16 samples",
               "conclude, payment with 16 auditors", "open, 16 leaves")  # fmt: skip
    claim = sum(gas[call] for call in claimed)
    audits = SAMPLES * (gas["commit, a usual draw"] + gas["reveal, MATCH"])
    dispute = gas["accuse, 7 witnesses"] + EXCHANGES * (gas["post"] + gas["answer"])
    dispute += gas["advance, count of 7"] + gas["acquitOrConvict, convicted"]
    member = gas["vote, commit"] + gas["vote, reveal"]
    return {
        "claim_of_16_samples_without_auditors": claim,
        "claim_of_16_samples": claim + audits,
        "claim_ok": claim + audits <= CLAIM_BAR,
        "dispute_of_10_exchanges_without_votes": dispute,
        "dispute_ok": dispute <= DISPUTE_BAR,
        "member": member,
        "member_ok": member <= MEMBER_BAR,
        **{f"quarrel: {what}": each for what, each in gas.items()},
    }
