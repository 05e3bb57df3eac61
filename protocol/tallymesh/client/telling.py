"""A job's events in words, for a person who follows it: the demo, `tallymesh logs` and the progress lines use them.

What is said never repeats the event's kind, which stands before it. A key that is missing is left out of the sentence
(docs/API.md: readers must stand that). This module knows no job and asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tallymesh import amounts

Name = Callable[[str], str]  # an account as this reader calls it

PASSED_OVER: Final = {  # codes of rejections (tallymesh_scheduler.matching) where the bare words would not do
    "own_node": "the payer's own",
    "has_seat": "seated already",
    "other_class": "of another numeric class",
    "class_pending": "with a numeric class that is not effective yet",
    "provisional": "with a numeric class still being measured",
    "rare_class": "of a class that too few could check",
}
_REASONS: Final = {"first": "its first", "forced": "suspected", "confirm": "to confirm"}


def short(account: str) -> str:
    """An address as far as a person compares it."""
    return f"{account[:10]}…" if account.startswith("0x") and len(account) > 12 else account or "somebody"


def tell(kind: str, data: Mapping[str, Any], name: Name = short) -> str:
    """The event in words; "" where there is nothing to say about it but that it was."""
    function = _TABLE.get(kind)
    return function(data, name) if function is not None else ""


def _status(data: Mapping[str, Any], name: Name) -> str:
    return str(data.get("status", ""))


def _match(data: Mapping[str, Any], name: Name) -> str:
    count = int(data.get("proposals", 0))
    rejected: Mapping[str, int] = data.get("rejected") or {}
    none = "no more offers fit" if "has_seat" in rejected else "no offer fits"
    asked = f"{many(count, 'offer')} fit{'s' * (count == 1)}" if count else none
    words = [f"{number} {PASSED_OVER.get(code, code.replace('_', ' '))}" for code, number in rejected.items()]
    over = f"; passed over: {', '.join(words)}" if words else ""
    money = "; the budget is too small" if data.get("waiting") == "budget_too_small" else ""
    return f"{_for(data)}{asked}{money}{over}"


def many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _for(data: Mapping[str, Any]) -> str:
    return f"for stage {data['stage']}: " if data.get("stage") else ""


def _lease(data: Mapping[str, Any], name: Name) -> str:
    who = name(str(data.get("account", "")))
    if data.get("state") == "refused":
        return f"{who} says no: {data.get('sentence') or data.get('code', '')}"
    return f"{who} is asked" + (f" to work on stage {data['stage']}" if data.get("stage") else "")


def _seat(data: Mapping[str, Any], name: Name) -> str:
    text = name(str(data.get("account", ""))) + " has a seat"
    if data.get("stage"):
        text += f" for stage {data['stage']}"
    if "positions" in data and "price_wei" in data:
        units, price = int(data["positions"]), int(data["price_wei"])
        text += f": up to {many(units, 'unit')} at {amounts.show(price)} each, {amounts.show(units * price)} at most"
    return text


def _assign(data: Mapping[str, Any], name: Name) -> str:
    return f"{unit_name(data)} to {name(str(data.get('account', '')))}"


def _unit(data: Mapping[str, Any], name: Name) -> str:
    took = data.get("seconds") or {}
    seconds = f" in {sum(took.values()):.2f} s" if took else ""
    return f"{unit_name(data)} done by {name(str(data.get('account', '')))}{seconds}{_dash(_numbers(data))}"


def unit_name(data: Mapping[str, Any]) -> str:
    """A round's number counts from 1 for people, as in the `round` event; a map has one round only."""
    stage = str(data.get("stage") or "map")
    if stage == "map":
        return f"item {data.get('index', '?')}"
    return f"{stage} {data.get('index', '?')} of round {int(data.get('round', 0)) + 1}"


def _round(data: Mapping[str, Any], name: Name) -> str:
    return f"{data.get('round', '?')}{_dash(_numbers(data))}"


def _metric(data: Mapping[str, Any], name: Name) -> str:
    value = data.get("value", "")
    return f"{data.get('name', '?')} {value:.6g}" if isinstance(value, float) else f"{data.get('name', '?')} {value}"


def _system(data: Mapping[str, Any], name: Name) -> str:
    series = ", ".join(f"{key.replace('_', ' ')} {value:.6g}" for key, value in (data.get("series") or {}).items())
    return f"{name(str(data.get('account', '')))}: {series}"


def _log(data: Mapping[str, Any], name: Name) -> str:
    return str(data.get("line", ""))


def _audit(data: Mapping[str, Any], name: Name) -> str:
    auditor = str(data.get("auditor", ""))
    by = "the payer's own node" if auditor == "payer" else name(auditor)
    reason = str(data.get("reason", ""))
    why = f" ({_REASONS.get(reason, reason)})" if reason else ""
    unit = f"{name(str(data.get('account', '')))}'s unit {data.get('position', '?')}{why}"
    result = str(data.get("result", ""))
    if not result:
        silent = data.get("state") == "silent"
        return f"{unit}: {by} did not answer" if silent else f"{unit} is to be run again by {by}"
    return f"{unit} run again by {by}: {result}"


def _caught(data: Mapping[str, Any], name: Name) -> str:
    return f"{name(str(data.get('account', '')))}: {data.get('sentence') or 'its work did not match'}"


def _redo(data: Mapping[str, Any], name: Name) -> str:
    units = int(data.get("units", 0))
    return f"{many(units, 'unit')} {'is' if units == 1 else 'are'} computed again, and every round that used one"


def _accept(data: Mapping[str, Any], name: Name) -> str:
    return f"{name(str(data.get('account', '')))} will be paid for {many(int(data.get('units', 0)), 'unit')}"


def _settle(data: Mapping[str, Any], name: Name) -> str:
    cost = f": the job cost {amounts.show(int(data['cost_wei']))}, audits included" if "cost_wei" in data else ""
    return f"workers and auditors are paid on chain{cost}"


def _refund(data: Mapping[str, Any], name: Name) -> str:
    left = int(data.get("left_wei", 0))
    rest = f"; {amounts.show(left)} are still in escrow and come back later" if left else ", all of it"
    return f"what was not spent came back to the payer{rest}"


def _warning(data: Mapping[str, Any], name: Name) -> str:
    who = f"{name(str(data['account']))}: " if data.get("account") else ""
    return f"{who}{data.get('sentence', '')} {data.get('remedy', '')}".strip()


def _done(data: Mapping[str, Any], name: Name) -> str:
    problem = data.get("problem") or {}
    text = f"{problem.get('sentence', '')} {problem.get('remedy', '')}".strip() if problem else _numbers(data)
    status = str(data.get("status", ""))
    return ": ".join(part for part in (status, text) if part)


def _numbers(data: Mapping[str, Any]) -> str:
    metrics = data.get("metrics") or {}
    return ", ".join(f"{key} {value:.6g}" for key, value in metrics.items() if isinstance(value, int | float))


def _dash(text: str) -> str:
    return f" · {text}" if text else ""


_TABLE: Final[dict[str, Callable[[Mapping[str, Any], Name], str]]] = {
    "status": _status,
    "match": _match,
    "lease": _lease,
    "seat": _seat,
    "assign": _assign,
    "unit": _unit,
    "round": _round,
    "metric": _metric,
    "system": _system,
    "log": _log,
    "audit": _audit,
    "caught": _caught,
    "redo": _redo,
    "accept": _accept,
    "settle": _settle,
    "refund": _refund,
    "warning": _warning,
    "done": _done,
}
