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
            **{f"quarrel: {what}": gas for what, gas in json.loads(QUARRELS.read_text()).items()},
        },
    )
