"""Texts about a finished job: the model card, which checks were made, and the report. Facts in, Markdown out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from tallymesh import amounts
from tallymesh.api import AuditView, JobView
from tallymesh.client.telling import many, short
from tallymesh.units import JobSpec

_OWN: Final = {"local": "this machine", "ray": "your Ray cluster"}  # backends without strangers
AUDITORS_SHOWN: Final = 4  # by name in one sentence; the others are counted


_APPROXIMATE: Final = "clients were computed together (batched=True), and the hash promises nothing"


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """Which checks held, and which could not be made. `audits` counts recomputations that were answered."""

    backend: str
    units: int
    audits: int
    matched: int
    mismatched: int
    unavailable: int
    by_payer: int  # of them made by the payer's own node: they withhold pay, they slash nobody
    redone: int
    made: tuple[str, ...]
    not_made: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*(f"+ {line}" for line in self.made), *(f"- {line}" for line in self.not_made)])


def checks(view: JobView, audits: Sequence[AuditView], backend: str) -> Checks:
    results = Counter(audit.result for audit in audits if audit.result)
    answered = sum(results.values())
    by_payer = sum(1 for audit in audits if audit.result and audit.auditor == "payer")
    again = _units_of([audit for audit in audits if audit.result])
    made: list[str] = []
    not_made: list[str] = []
    if backend == "network":
        made.append(f"{again} of {view.units_done} units were computed again: {_counts(results)}")
        if view.replicated:
            made.append(f"{view.replicated} of {view.units_done} units were run by two workers, who agree")
        if view.kind != "map":
            made.append("each update's form, finiteness and loss were checked on arrival")
        if by_payer:
            were = "was" if by_payer == 1 else "were"
            why = "too few auditors could be drawn"
            not_made.append(f"{by_payer} of these recomputations {were} made by the payer's own node: {why}")
        if again < view.units_done and not view.replicated:
            not_made.append(f"{view.units_done - again} units were not drawn: sampling bounds cheating, not each unit")
    else:
        not_made.append(f"everything ran on {_OWN[backend]}: there was nobody to check")
    if view.approximate:
        made.append("in the first round a client was computed by the loop, too: the difference was rounding")
        not_made.append(f"approximate: {_APPROXIMATE}")
    return Checks(
        backend=backend,
        units=view.units_done,
        audits=answered,
        matched=results["match"],
        mismatched=results["mismatch"],
        unavailable=results["unavailable"],
        by_payer=by_payer,
        redone=view.redone,
        made=tuple(made),
        not_made=tuple(not_made),
    )


def outcome(view: JobView, audits: Sequence[AuditView], backend: str) -> list[str]:
    """Of a job that has ended, in sentences: what it cost, how it was checked and by whom, who was caught."""
    if backend != "network":
        return [f"It ran on {_OWN[backend]}: it cost nothing, and there was nobody to check."]
    lines = [_cost(view)]
    answered = [audit for audit in audits if audit.result]
    again = _units_of(answered)
    if again:
        results = _counts(Counter(audit.result for audit in answered))
        were = f"{again} of its {many(view.units_done, 'unit')} {'was' if again == 1 else 'were'} computed again"
        lines.append(f"{were} ({results}): {_by(answered)}.")
    elif view.units_done:
        lines.append(f"None of its {many(view.units_done, 'unit')} was computed again.")
    if view.replicated:
        lines.append(f"{view.replicated} of them were run by two workers, who agree.")
    for peer in view.peers:
        if peer.phase == "forfeited" and peer.problem is not None:
            lines.append(f"Caught: {short(peer.account)}: {peer.problem.sentence}")
    if view.redone:
        lines.append(f"{many(view.redone, 'unit')} had to be done again.")
    return lines


def _cost(view: JobView) -> str:
    cost, budget, held = int(view.cost_wei), int(view.budget_wei), int(view.escrow_wei)
    text = f"It cost {amounts.show(cost)} of a budget of {amounts.show(budget)}" if cost else "It cost nothing"
    if held:
        return f"{text}; {amounts.show(held)} are still in escrow and come back in a while."
    return f"{text}; the rest came back." if 0 < cost < budget else f"{text}."


def _units_of(audits: Sequence[AuditView]) -> int:
    """A mismatch is confirmed by others: three recomputations can be of one unit."""
    return len({(audit.seat, audit.position) for audit in audits})


def _by(answered: Sequence[AuditView]) -> str:
    """``9 by 0x7c5e…, 3 by the payer's own node``."""
    counts = Counter(audit.auditor for audit in answered).most_common()
    own = "the payer's own node"
    words = [f"{count} by {own if who == 'payer' else short(who)}" for who, count in counts[:AUDITORS_SHOWN]]
    if rest := sum(count for _, count in counts[AUDITORS_SHOWN:]):
        words.append(f"{rest} by {many(len(counts) - AUDITORS_SHOWN, 'other')}")
    return ", ".join(words)


def card(view: JobView, spec: JobSpec, model_sha: str, audits: Sequence[AuditView]) -> str:
    config = msgspec.json.decode(spec.stages[0].config or b"{}")
    taken = "all" if not spec.per_round else f"{spec.per_round} of {len(spec.inputs)}"
    rows = [
        ("checkpoint", f"`{model_sha}`" + (f", approximate: {_APPROXIMATE}" if view.approximate else "")),
        ("model", f"`{config.get('model', '?')}`, loss `{config.get('loss', '?')}`"),
        ("training", f"{spec.kind}, {spec.rounds} rounds, {len(spec.inputs)} shards, {taken} in each round"),
        ("local work", ", ".join(f"{name} {value}" for name, value in config.get("local", {}).items()) or "defaults"),
        ("seed", str(spec.seed)),
        ("program", f"`{spec.program.hex()}`"),
        ("numeric profile", f"`{spec.profile.hex()}`"),
        ("held-out data", f"`{spec.test.hex()}`" if any(spec.test) else "none"),
        *((f"metric: {name}", f"{value:.6g}") for name, value in sorted(view.metrics.items())),
        ("checked", _checked(view, audits)),
        ("workers", ", ".join(sorted({peer.account for peer in view.peers})) or "this machine"),
        ("cost", amounts.show(int(view.cost_wei))),
    ]
    load = (
        "net = job.result.load()"
        if view.id.startswith("local-")
        else f'net = tallymesh.attach("{view.id}").result.load()'
    )
    return f"# {view.name or 'model'}\n\n{_table(('what', 'value'), rows)}\n```python\n{load}\n```\n"


def _checked(view: JobView, audits: Sequence[AuditView]) -> str:
    """What the recomputations found. Of a job without any other worker there is nothing to recompute."""
    if not view.peers and not audits:
        return "by nobody else: all of it was computed on the owner's side"
    return f"{_counts(Counter(audit.result for audit in audits if audit.result))}; {many(view.redone, 'unit')} redone"


def report(view: JobView, found: Checks) -> str:
    seconds = (view.finished or view.created) - view.created
    head = [
        ("status", view.status),
        ("took", f"{seconds:.1f} s"),
        ("units", f"{view.units_done} done" + (f", {view.redone} of them again" if view.redone else "")),
        ("cost", f"{amounts.show(int(view.cost_wei))} of {amounts.show(int(view.budget_wei))}"),
        *((f"metric: {name}", f"{value:.6g}") for name, value in sorted(view.metrics.items())),
    ]
    if view.problem is not None:
        head.append(("problem", f"{view.problem.sentence} {view.problem.remedy}".strip()))
    peers = [
        (
            peer.account,
            peer.stage,
            f"{peer.received} of {peer.assigned}",
            f"{peer.accepted}",
            amounts.show(peer.paid * int(peer.price_wei)),
            peer.problem.sentence if peer.problem else "",
        )
        for peer in view.peers
    ]
    text = f"# Job {view.id}\n\n{_table(('what', 'value'), head)}\n## Checks\n\n{found}\n"
    if peers:
        text += f"\n## Workers\n\n{_table(('account', 'stage', 'units', 'accepted', 'paid', 'note'), peers)}"
    return text


def _counts(results: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(results.items())) or "none answered"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
