"""Events in words: every kind that the API page lists is a sentence without raw fields, whatever keys are missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tallymesh.client.telling import tell

WORKER, OTHER = "0x" + "ab" * 20, "0x" + "cd" * 20
PAGE = Path(__file__).resolve().parents[2] / "docs/API.md"
WHO: dict[str, Any] = {"account": WORKER, "peer": "12D3KooW", "seat": "ee" * 32}
UNIT: dict[str, Any] = {"stage": "client", "round": 2, "index": 4, "position": 7, **WHO}
SAID: list[tuple[str, dict[str, Any], str]] = [
    ("status", {"status": "matching"}, "matching"),
    (
        "match",
        {"stage": "client", "proposals": 2, "rejected": {"has_seat": 1, "too_expensive": 3}, "waiting": ""},
        "for stage client: 2 offers fit; passed over: 1 seated already, 3 too expensive",
    ),
    (
        "match",
        {"stage": "map", "proposals": 0, "rejected": {}, "waiting": "budget_too_small"},
        "for stage map: no offer fits; the budget is too small",
    ),
    (
        "match",
        {"stage": "map", "proposals": 0, "rejected": {"has_seat": 4, "other_class": 1}, "waiting": ""},
        "for stage map: no more offers fit; passed over: 4 seated already, 1 of another numeric class",
    ),
    ("lease", {"state": "asked", "stage": "client", **WHO}, "0xabababab… is asked to work on stage client"),
    ("lease", {"state": "refused", "code": "busy", "sentence": "Busy.", **WHO}, "0xabababab… says no: Busy."),
    (
        "seat",
        {"stage": "client", "positions": 30, "price_wei": str(5_555_555_555_556), "until": 1_700_000_000, **WHO},
        "0xabababab… has a seat for stage client: up to 30 units at 0.00000555 MESH each, 0.000166 MESH at most",
    ),
    ("assign", UNIT, "client 4 of round 3 to 0xabababab…"),
    (
        "unit",
        {**UNIT, "output": "11" * 32, "seconds": {"load": 0.25, "compute": 1.0}, "metrics": {"loss": 0.5}},
        "client 4 of round 3 done by 0xabababab… in 1.25 s · loss 0.5",
    ),
    ("unit", {"stage": "map", "index": 4, "output": "11" * 32, "account": OTHER}, "item 4 done by 0xcdcdcdcd…"),
    ("round", {"round": 3, "metrics": {"accuracy": 0.958333333}, "state": "11" * 32}, "3 · accuracy 0.958333"),
    ("metric", {"name": "own_loss", "value": 0.125, "round": 1, "index": 0, "account": WORKER}, "own_loss 0.125"),
    ("system", {"series": {"cpu_percent": 55.5, "memory_mib": 812.0}, "account": WORKER},
     "0xabababab…: cpu percent 55.5, memory mib 812"),
    ("log", {"line": "a batch of 32", **UNIT}, "a batch of 32"),
    ("audit", {"auditor": OTHER, "state": "ordered", "result": "", "reason": "first", "draw": 0, **UNIT},
     "0xabababab…'s unit 7 (its first) is to be run again by 0xcdcdcdcd…"),
    ("audit", {"auditor": "payer", "state": "done", "result": "mismatch", "reason": "drawn", "draw": 0, **UNIT},
     "0xabababab…'s unit 7 (drawn) run again by the payer's own node: mismatch"),
    ("audit", {"auditor": OTHER, "state": "silent", "result": "", "reason": "drawn", "draw": 0, **UNIT},
     "0xabababab…'s unit 7 (drawn): 0xcdcdcdcd… did not answer"),
    ("caught", {"check": "audit", "sentence": "It lied.", **UNIT}, "0xabababab…: It lied."),
    ("redo", {"units": 1, **WHO}, "1 unit is computed again, and every round that used one"),
    ("accept", {"tally": 2, "units": 50, **WHO}, "0xabababab… will be paid for 50 units"),
    ("settle", {"cost_wei": str(41 * 10**15)},
     "workers and auditors are paid on chain: the job cost 0.041 MESH, audits included"),
    ("refund", {"left_wei": "0"}, "what was not spent came back to the payer, all of it"),
    ("refund", {"left_wei": str(10**17)},
     "what was not spent came back to the payer; 0.1 MESH are still in escrow and come back later"),
    ("warning", {"sentence": "A worker left: busy.", "code": "left", **WHO}, "0xabababab…: A worker left: busy."),
    ("done", {"status": "done", "result": "11" * 32, "metrics": {}}, "done"),
    ("done", {"status": "done", "result": "11" * 32, "metrics": {"accuracy": 0.5}}, "done: accuracy 0.5"),
    ("done", {"status": "failed", "problem": {"code": "deadline", "sentence": "Too late.", "remedy": "Ask for more."}},
     "failed: Too late. Ask for more."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "data", "words"), SAID, ids=[f"{kind}{at}" for at, (kind, _, _) in enumerate(SAID)])
def test_an_event_is_a_sentence(kind: str, data: dict[str, Any], words: str) -> None:
    assert tell(kind, data) == words
    assert not re.search(r"[{}]|[0-9a-f]{16}|wei|\d{7}", tell(kind, data).replace("0.00000555", "")), "a raw field"


def test_every_kind_of_the_api_page_is_told() -> None:
    table = PAGE.read_text().split("What `data` holds, by kind.")[1]
    kinds = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(kinds) >= 18
    assert {kind for kind, _, _ in SAID} == set(kinds)


def test_missing_keys_are_stood_and_an_unknown_kind_says_nothing() -> None:
    for kind, _, _ in SAID:
        assert isinstance(tell(kind, {}), str)
    assert tell("prophecy", {"of": "doom"}) == ""


def test_accounts_have_the_readers_names() -> None:
    assert tell("caught", {"account": WORKER, "sentence": "It lied."}, lambda account: "Bob") == "Bob: It lied."
