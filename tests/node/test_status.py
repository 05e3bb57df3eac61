"""What the owner is told of a node that cannot do its work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tallymesh.errors import LocalError
from tallymesh_node.status import NodeStatus


def healthy() -> Any:
    """Of a node only what its problems are made of."""
    return SimpleNamespace(
        enrolment=SimpleNamespace(problems=[], done=True, slots=1),
        executor=SimpleNamespace(status=None),
        database=SimpleNamespace(refused=None),
        reachability=SimpleNamespace(reachable=True, sentence=""),
        config=SimpleNamespace(works=True),
        claims=None,
        quarrels=None,
        restored=None,
        chain=SimpleNamespace(unavailable="", held_back=None),
    )


def test_a_disk_that_takes_nothing_is_a_problem_until_it_does() -> None:
    """Nothing is signed meanwhile, and the log is not where an owner looks first."""
    node = healthy()
    assert NodeStatus(node).problems() == []
    node.database.refused = LocalError("disk", "The disk is full.", remedy="Free some space.")
    (problem,) = NodeStatus(node).problems()
    assert (problem.code, problem.sentence, problem.remedy) == ("disk", "The disk is full.", "Free some space.")
    node.database.refused = None
    assert NodeStatus(node).problems() == []
