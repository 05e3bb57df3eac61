"""What the owner is told of a node that cannot do its work."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from tallymesh.errors import LocalError
from tallymesh.messages import Offer
from tallymesh_node.cli import jobs
from tallymesh_node.limits import Stance
from tallymesh_node.machine import Machine
from tallymesh_node.status import NodeStatus
from tallymesh_node.store.life import Restored
from tallymesh_node.worker.admission import SEAT_BY_MAX_S


def healthy() -> Any:
    """Of a node only what its problems are made of."""
    return SimpleNamespace(
        enrolment=SimpleNamespace(problems=[], done=True, slots=1),
        executor=SimpleNamespace(status=None),
        database=SimpleNamespace(refused=None),
        reachability=SimpleNamespace(reachable=True, sentence=""),
        config=SimpleNamespace(works=True),
        settings=SimpleNamespace(cores=2, memory_mib=1024, disk_gib=0),
        steward=SimpleNamespace(stance=Stance()),
        twins=SimpleNamespace(problems=list),
        worker=None,
        proving=None,
        machine=Machine(cores=2, memory_mib=4096, disk_mib=10_240, cpu="x", architecture="x"),
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


def test_more_than_the_machine_has_is_told_and_not_offered_in_silence() -> None:
    node = healthy()
    node.settings.cores, node.settings.memory_mib, node.settings.disk_gib = 400, 4096, 11
    sentences = [problem.sentence for problem in NodeStatus(node).problems()]
    assert sentences == [
        "The owner allows --cores 400, this machine has 2: 2 are offered.",
        "The owner allows --memory-mib 4096, this machine has 3584 (and keeps 512 MiB for itself): 3584 are offered.",
        "The owner allows --disk-gib 11, this machine has 10 free: 10 are offered.",
    ]


def test_a_folder_that_was_put_back_is_told_while_no_lease_is_taken() -> None:
    node = healthy()
    node.restored = Restored(7, time.time())
    (problem,) = NodeStatus(node).problems()
    assert problem.code == "restored"
    node.restored = Restored(7, time.time() - SEAT_BY_MAX_S)
    assert NodeStatus(node).problems() == []


def offered(account: bytes = b"\1" * 20, numeric_class: bytes = b"\7" * 32, gpus: str = "") -> Offer:
    return Offer(
        account=account, peer_id_hash=bytes(32), numeric_class=numeric_class, provisional=False, cores=1, memory_mib=1,
        disk_mib=1, gpus=gpus, cpu_score=1, ask_price=1, addresses="", attestation=bytes(32), seq=1, issued=1,
        expires=2,
    )  # fmt: skip


def test_of_a_strangers_cards_only_what_can_be_read_is_shown() -> None:
    """It goes to a terminal, which obeys control characters."""
    said = ["2*NVIDIA H200:143771:570.86.15:48.1:52.3", "\x1b]0;owned\x07", "1*\x1b[2J:1:5:1.0:1.0", ""]
    listed = [SimpleNamespace(offer=offered(gpus=gpus), peer_id="12D3") for gpus in said]
    node: Any = SimpleNamespace(book=SimpleNamespace(registry=None, offers=lambda: listed))
    assert [view.gpus for view in NodeStatus(node).offers()] == [said[0], "", "", ""]


def test_an_offer_says_whether_its_class_counts_on_chain() -> None:
    """Nobody is leased before: who waits for a worker, a person or a test, sees what it waits for."""
    measured, account = b"\7" * 32, b"\1" * 20
    offer = offered(account, measured)
    listed = SimpleNamespace(offer=offer, peer_id="12D3")

    def seen(registry: Any) -> tuple[bool, bool]:
        node: Any = SimpleNamespace(book=SimpleNamespace(registry=registry, offers=lambda: [listed]))
        (view,) = NodeStatus(node).offers()
        assert view.stake_known == (registry is not None)
        assert ("waiting for the chain" in jobs._standing(view)) == (registry is None), "not unstaked: nobody knows"
        return view.staked, view.class_counts

    def registry(classes: dict[bytes, bytes]) -> Any:
        return SimpleNamespace(classes=classes, slots_of=lambda _: 1)

    assert seen(None) == (False, False)
    assert seen(registry({})) == (True, False)
    assert seen(registry({account: b"\6" * 32})) == (True, False)
    assert seen(registry({account: measured})) == (True, True)


def test_a_machine_that_its_owner_took_back_says_so_and_what_still_runs() -> None:
    node = healthy()
    node.steward.stance = Stance(code="paused", sentence="Paused by its owner.", remedy="tallymesh node resume")
    node.worker = SimpleNamespace(seats=lambda: [SimpleNamespace(running=2), SimpleNamespace(running=0)])
    (problem,) = NodeStatus(node).problems()
    assert (problem.code, problem.remedy) == ("paused", "tallymesh node resume")
    assert problem.sentence == "Paused by its owner. 2 units may end first."
