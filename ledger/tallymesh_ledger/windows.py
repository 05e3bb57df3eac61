"""How long after a seat has closed its worker can be held to what it signed: so long its evidence is kept.

Sums of the network's parameters. They know no chain: a case that ends sooner ends sooner.
"""

from __future__ import annotations

from tallymesh.parameters import Parameters
from tallymesh_ledger.court import MAX_REDRAWS

MOVES = 2 * 20  # two to a step of a bisection; a unit of a million steps has twenty


def case_s(parameters: Parameters) -> int:
    """The longest that a case of the Court can go on, every deadline used up: both panels drawn again and again."""
    panel = (1 + MAX_REDRAWS) * (parameters.court_commit_s + parameters.court_reveal_s)
    return MOVES * parameters.court_move_s + 2 * panel + parameters.court_appeal_s


def evidence_s(parameters: Parameters) -> int:
    """From a seat's end: accusations can begin until its lock ends, and a case then takes its time. A claim holds its
    seat open, and ends before this begins."""
    return parameters.lock_tail_s + case_s(parameters)
