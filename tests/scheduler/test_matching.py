"""Matching: each rejection has its reason, plans repeat, money is never promised twice."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymesh.messages import Offer
from tallymesh_scheduler.matching import Candidate, MatchRequest, advice, match, unit_price_up

CLASS = b"\5" * 32
NOW = 1_000


def offer(number: int = 1, **more: object) -> Offer:
    fields: dict[str, object] = {
        "account": bytes([number]) * 20, "peer_id_hash": bytes(32), "numeric_class": CLASS, "provisional": False,
        "cores": 2, "memory_mib": 4096, "disk_mib": 10_000, "gpus": "", "cpu_score": 1000, "ask_price": 10,
        "addresses": "/ip4/127.0.0.1/tcp/1", "attestation": bytes(32), "seq": 1, "issued": 900, "expires": 1_060,
    }  # fmt: skip
    return Offer(**(fields | more))


def candidate(number: int = 1, offered: Offer | None = None, **more: object) -> Candidate:
    offered = offered or offer(number)
    fields: dict[str, object] = {
        "offer": offered, "peer_id": f"peer{number}", "slots": 1, "free_stake": 100, "owner": offered.account,
        "chain_class": CLASS, "class_accounts": 3, "class_share_bp": 5_000, "free_cores": offered.cores,
    }  # fmt: skip
    return Candidate(**(fields | more))


def request(**more: object) -> MatchRequest:
    fields: dict[str, object] = {
        "payer": b"\xaa" * 20, "payer_owner": b"\xaa" * 20, "numeric_class": CLASS, "memory_mib": 1024, "price_max": 50,
        "units_left": 40, "width": 10, "wages": 10_000, "lock": 20, "class_accounts_min": 2, "class_share_min_bp": 500,
    }  # fmt: skip
    return MatchRequest(**(fields | more))


GPUS = "2*NVIDIA H200:143771:570.86.15:48.1:52.3"

REFUSED = {
    "own_node": candidate(owner=b"\xaa" * 20),
    "expired": candidate(offered=offer(expires=NOW)),
    "distrusted": candidate(distrust="It was convicted."),
    "unstaked": candidate(slots=0),
    "stake_locked": candidate(free_stake=19),
    "provisional": candidate(offered=offer(provisional=True)),
    "other_class": candidate(offered=offer(numeric_class=b"\6" * 32)),
    "class_pending": candidate(chain_class=b""),
    "rare_class": candidate(class_accounts=1),
    "unreachable": candidate(unreachable="Port 4001 is closed."),
    "too_little_memory": candidate(offered=offer(memory_mib=512)),
    "too_few_cores": candidate(offered=offer(cores=0)),
    "sells_gpus": candidate(offered=offer(gpus=GPUS)),
    "cores_taken": candidate(free_cores=0),
    "base_only": candidate(base_only=True),
    "too_expensive": candidate(offered=offer(ask_price=51)),
}


@pytest.mark.parametrize("code", REFUSED)
def test_an_offer_that_does_not_fit_is_rejected_with_its_reason(code: str) -> None:
    found = match(request(packages=code == "base_only"), [REFUSED[code], candidate(9)], NOW, 0)
    assert [(r.account, r.code) for r in found.rejections] == [(REFUSED[code].offer.account, code)]
    assert found.rejections[0].sentence
    assert [p.candidate.peer_id for p in found.proposals] == ["peer9"]


REFUSED_WITH_GPUS = {
    "no_gpus": candidate(),
    "too_few_gpus": candidate(offered=offer(gpus="1*NVIDIA H200:143771:570.86.15:48.1:52.3")),
    "other_class": candidate(offered=offer(gpus=GPUS, numeric_class=b"\6" * 32)),
    "class_pending": candidate(offered=offer(gpus=GPUS), chain_class=b""),
    "provisional": candidate(offered=offer(gpus=GPUS, provisional=True)),
}


@pytest.mark.parametrize("code", REFUSED_WITH_GPUS)
def test_a_job_that_asks_for_gpus_goes_to_proven_ones_of_its_class_alone(code: str) -> None:
    refused = REFUSED_WITH_GPUS[code]
    found = match(request(gpus=2), [refused, candidate(9, offer(9, gpus=GPUS))], NOW, 0)
    assert [(r.account, r.code) for r in found.rejections] == [(refused.offer.account, code)]
    assert found.rejections[0].sentence
    assert [p.candidate.peer_id for p in found.proposals] == ["peer9"]


@pytest.mark.parametrize("text", ["NVIDIA H200", "0*NVIDIA H200:1:1:1.0:1.0", "x" * 61, "1*a:1:1:nan:1.0", ";;;"])
def test_an_offer_whose_gpus_cannot_be_read_sells_none(text: str) -> None:
    found = match(request(gpus=1), [candidate(1, offer(1, gpus=text))], NOW, 0)
    assert [r.code for r in found.rejections] == ["no_gpus"]
    assert advice(found.rejections).startswith("Leave gpu= out")


def test_who_takes_the_base_set_only_is_asked_for_jobs_without_packages() -> None:
    assert match(request(), [candidate(1, base_only=True)], NOW, 0).proposals


def test_no_fitting_offer_says_what_is_wrong_with_each() -> None:
    found = match(request(), [candidate(1, slots=0), candidate(2, slots=0), REFUSED["too_little_memory"]], NOW, 0)
    assert found.waiting is not None
    assert found.waiting.code == "no_offers"
    assert "Rejected 3 offers: 2 unstaked" in found.waiting.sentence
    assert "0.5 < 1.0 GiB" in found.waiting.sentence


def test_the_commonest_reason_comes_with_what_to_do() -> None:
    dear = [candidate(n, offered=offer(ask_price=51)) for n in (1, 2)]
    found = match(request(), [*dear, REFUSED["too_little_memory"]], NOW, 0)
    assert advice(found.rejections).startswith("Raise max_price")
    assert advice(match(request(), [REFUSED["expired"]], NOW, 0).rejections) == ""
    assert advice(()) == ""


def test_no_offer_at_all_says_so() -> None:
    found = match(request(), [], NOW, 0)
    assert found.waiting is not None
    assert "No offer has been seen yet" in found.waiting.sentence


def test_wages_that_buy_no_unit_say_how_much_is_needed() -> None:
    found = match(request(wages=9), [candidate()], NOW, 0)
    assert found.waiting is not None
    assert (found.waiting.code, found.waiting.needed_wei) == ("budget_too_small", 400)


def test_the_cheapest_are_asked_and_the_rest_is_not_needed() -> None:
    offers = [candidate(n, offered=offer(n, ask_price=10 + n)) for n in range(1, 8)]
    found = match(request(width=6), offers, NOW, 0)
    assert [p.candidate.peer_id for p in found.proposals] == ["peer1", "peer2", "peer3"]
    assert {r.code for r in found.rejections} == {"not_needed"}


def test_others_come_before_one_in_doubt_however_cheap_it_is() -> None:
    doubtful = candidate(1, offered=offer(1, ask_price=1), doubt="It was late.")
    others = [candidate(n, offered=offer(n, ask_price=10)) for n in (2, 3)]
    found = match(request(width=2, cores=1, workers_max=1), [doubtful, *others], NOW, 0)
    assert all(p.candidate.peer_id != "peer1" for p in found.proposals)
    assert "It was late." in next(r.sentence for r in found.rejections if r.account == doubtful.offer.account)
    alone = match(request(), [doubtful], NOW, 0)
    assert [p.candidate.peer_id for p in alone.proposals] == ["peer1"]


def test_a_spare_seat_is_kept_where_the_wages_allow_it() -> None:
    found = match(request(width=4, wages=1_000), [candidate(n) for n in (1, 2)], NOW, 0)
    seated = sum(p.price * p.positions for p in found.proposals)
    assert len(found.proposals) == 2
    assert seated + found.proposals[0].price * found.proposals[0].positions <= 1_000


def test_a_peer_that_holds_a_seat_is_not_asked_again() -> None:
    found = match(request(busy=frozenset({candidate(1).offer.account})), [candidate(1), candidate(2)], NOW, 0)
    assert [p.candidate.peer_id for p in found.proposals] == ["peer2"]


def test_price_of_a_unit_is_rounded_up() -> None:
    assert unit_price_up(10, 1) == 1
    assert unit_price_up(10, 1000) == 10
    assert unit_price_up(0, 1000) == 0


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4), st.integers(0, 2)), max_size=12),
    st.integers(0, 5_000),
    st.integers(0, 200),
    st.integers(0, 30),
    st.integers(0, 2**32),
)
@settings(max_examples=300)
def test_any_market_gives_a_repeatable_plan_within_the_wages(
    market: list[tuple[int, int, int]], wages: int, units: int, width: int, seed: int
) -> None:
    offers = [
        candidate(n + 1, offered=offer(n + 1, ask_price=price, cores=cores), free_cores=cores, slots=slots)
        for n, (price, cores, slots) in enumerate(market)
    ]
    wanted = request(wages=wages, units_left=units, width=width)
    found = match(wanted, offers, NOW, seed)
    assert msgspec.json.encode(match(wanted, offers, NOW, seed)) == msgspec.json.encode(found)
    assert sum(p.price * p.positions for p in found.proposals) <= wages
    assert all(p.positions >= 1 for p in found.proposals)
    named = [p.candidate.offer.account for p in found.proposals] + [r.account for r in found.rejections]
    if units and width and not found.waiting:
        assert sorted(named) == sorted(c.offer.account for c in offers)
    assert len(set(named)) == len(named)


# ---- accounts on probation


def test_a_newcomer_gets_no_more_than_the_escrow_would_seat() -> None:
    found = match(request(newcomers=True), [candidate(slots=0, free_stake=0, chain_class=b"", room=35)], NOW, 0)
    assert [(p.price, p.positions) for p in found.proposals] == [(10, 3)]


@pytest.mark.parametrize(("room", "code"), [(9, "newcomer_full"), (10, "")])
def test_a_newcomer_without_room_for_a_unit_waits(room: int, code: str) -> None:
    found = match(request(newcomers=True), [candidate(slots=0, room=room)], NOW, 0)
    assert [r.code for r in found.rejections] == ([code] if code else [])


def test_a_newcomer_without_price_or_room_gets_nothing() -> None:
    found = match(request(newcomers=True), [candidate(offered=offer(ask_price=0), slots=0, room=0)], NOW, 0)
    assert [r.code for r in found.rejections] == ["newcomer_full"]


def test_an_account_that_could_not_pay_for_saying_its_class_works_where_newcomers_may() -> None:
    silent = candidate(chain_class=bytes(32))
    assert silent.newcomer
    assert match(request(newcomers=True), [silent], NOW, 0).proposals
    assert [r.code for r in match(request(), [silent], NOW, 0).rejections] == ["class_pending"]
    other = candidate(chain_class=b"\6" * 32)
    assert [r.code for r in match(request(newcomers=True), [other], NOW, 0).rejections] == ["class_pending"]


def test_at_the_same_price_stake_goes_first() -> None:
    found = match(
        request(newcomers=True, width=1, units_left=1), [candidate(1, slots=0, room=10), candidate(2)], NOW, 0
    )
    assert [p.candidate.peer_id for p in found.proposals] == ["peer2"]


def test_units_that_are_run_twice_are_leased_to_two_owners_and_none_gets_one_twice() -> None:
    """Ten units, so twenty runs, no more than ten of them for one account, though one would be wide enough."""
    wide = [candidate(number, free_cores=64) for number in (1, 2)]
    wanted = request(units_left=20, width=8, positions_max=10, owners_min=2, busy_owners=frozenset())
    assert [p.positions for p in match(wanted, wide, NOW, 0).proposals] == [10, 10]
    assert [p.positions for p in match(wanted, wide[:1], NOW, 0).proposals] == [10]
    assert len(match(request(units_left=20, width=8), wide, NOW, 0).proposals) == 1


def test_of_an_owner_one_account_at_a_time_runs_units_that_are_run_twice() -> None:
    owner = b"\x77" * 20
    theirs = [candidate(number, owner=owner) for number in (1, 2)]
    found = match(request(busy_owners=frozenset()), [*theirs, candidate(3)], NOW, 0)
    assert {p.candidate.owner for p in found.proposals} == {owner, candidate(3).owner}
    assert [r.code for r in found.rejections] == ["same_owner"]
    found = match(request(busy_owners=frozenset({owner})), [*theirs, candidate(3)], NOW, 0)
    assert [p.candidate.peer_id for p in found.proposals] == ["peer3"]
    assert len(match(request(), theirs, NOW, 0).proposals) == 2
