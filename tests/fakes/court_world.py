"""All contracts, a worker with an unpaid tally, a class of staked auditors, and every move of a claim, an accusation
and a case before the Court: what the transactions of a quarrel cost."""

from __future__ import annotations

import copy
import functools
from statistics import linear_regression
from typing import Any

import msgspec

from fakes.contract_world import NOBODY, Done, Engine, Exact, Job, World
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.exchange import Opening
from tallymesh.messages import Assign, Receipt, Tally
from tallymesh.parameters import HOUR, Parameters
from tallymesh_ledger import merkle, sampling
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.envelope import contract_address
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.keys import AccountKey

POSITIONS = 100  # all of them in one claim, at a rate that draws the most samples
BOND = 2 * WEI_PER_TOKEN
CLAIM_TALLY = 2**32 - 1
SALT = b"\x21" * 32
PROBE = b"\x22" * 32
ACCUSED, RIGHT = b"\x31" * 32, b"\x32" * 32
RECEIPT, CLAIM = 0, 2  # IAccusations.Word
_QUARRELS = ("Claims", "Accusations", "Court", "BlockhashRandomness")


class Bench:
    """`foreign` slots of another class stand between the auditors': they make draws long."""

    def __init__(self, engine: Engine | None = None, *, auditors: int = 12, foreign: int = 0) -> None:
        self.world = world = World(engine or Exact(), Parameters(class_delay_s=1))
        self.p = Parameters()
        self._deploy()
        self.job = job = Job(world, workers=1, positions=POSITIONS)
        numeric_class = job.leases[0].numeric_class
        self.auditors = {key.address: key for key in (self._auditor(numeric_class) for _ in range(auditors))}
        if foreign:
            other = world.funded(foreign * world.parameters.slot_wei)
            world.call("Registry", "buySlots", other.address, foreign, by=other)
        world.wait(2)
        job.order = msgspec.structs.replace(
            job.order, wages=job.order.wages + BOND, claim_bond=BOND, audit_rate_bp=10_000,
            signer_seat_max=job.order.wages + BOND,
        )  # fmt: skip
        job.again()
        shift = world.now + HOUR
        job.leases = [msgspec.structs.replace(job.leases[0], until=shift, seat_by=shift)]
        job.order = msgspec.structs.replace(job.order, deadline=shift)
        job.again()
        world.call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
        for key in (job.payer, job.workers[0]):
            self._approve(key)
            world.call("Token", "transfer", key.address, 100 * WEI_PER_TOKEN, by=world.bank)
        slots = sorted((key.address, i + 1) for i, key in enumerate(self.auditors.values()))  # slot 0 is the worker's
        self.witnesses = [slot for _, slot in slots][: self.p.court_quorum]
        self.openings = [self._opening(position) for position in range(POSITIONS)]
        self.leaves = [merkle.leaf(self.seat, p, opening) for p, opening in enumerate(self.openings)]

    @classmethod
    def exact(cls) -> Bench:
        """One on py-evm where nothing happened yet: it was prepared once in this process."""
        made = copy.copy(_prepared())
        made.job = made.job.copy()
        made.world = made.job.world
        return made

    @property
    def seat(self) -> bytes:
        return self.job.seats[0]

    @property
    def lease(self) -> Any:
        return self.job.leases[0]

    @property
    def worker(self) -> AccountKey:
        return self.job.workers[0]

    # Calls.

    def call(self, contract: str, function: str, *arguments: Any, by: AccountKey | None = None) -> Done:
        return self.world.call(contract, function, *arguments, by=by or self.job.signer)

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        return self.world.read(contract, function, *arguments)

    def blocks(self) -> None:
        """Six blocks: the seed is there."""
        for _ in range(6):
            self.call("Token", "approve", self.worker.address, 0)

    def wait(self, seconds: int) -> None:
        """Longer than that: blocks that were made meanwhile have run ahead of the clock."""
        self.world.wait(seconds + HOUR // 2)
        self.blocks()

    # A claim.

    def claim(self) -> tuple[bytes, Done]:
        tally = Tally(
            seat=self.seat, number=CLAIM_TALLY, previous=bytes(32), start=0, count=POSITIONS,
            root=merkle.root(self.leaves), block_number=0, block_hash=bytes(32),
        )  # fmt: skip
        done = self.call("Claims", "claim", self.job.order, self.lease, tally, NOBODY, self.witnesses, by=self.worker)
        return done.value, done

    def commit(self, claim: bytes, sample: int, end: bytes, *, rank: int = 0) -> tuple[int, Done]:
        """(attempt, what it did)"""
        account, attempt = self.read("Claims", "auditorAt", claim, sample, rank)
        sealed = sampling.commitment(end, SALT, account, PROBE)
        done = self.call("Claims", "commit", claim, sample, rank, attempt, sealed, by=self.auditors[account])
        return attempt, done

    def open_all(self, claim: bytes) -> Done:
        drawn = self.read("Claims", "unitsOf", claim)
        openings = [
            (sample, *msgspec.structs.astuple(self.openings[i]), self._assign(i), merkle.path(self.leaves, i))
            for sample, i in enumerate(drawn)
        ]
        return self.call("Claims", "open", claim, openings)

    def reveal(self, claim: bytes, sample: int, end: bytes) -> Done:
        auditor = self.read("Claims", "sampleOf", claim, sample)["auditor"]
        opening = self.openings[self.read("Claims", "unitsOf", claim)[sample]]
        finding = (opening.start, opening.end, opening.start, end, SALT, PROBE, 1)
        return self.call("Claims", "reveal", claim, sample, finding, by=self.auditors[auditor])

    def case_of(self, claim: bytes, sample: int) -> bytes:
        return keccak(keccak(b"tallymesh.case.1") + claim + word(sample))

    # An accusation.

    def accuse(self, *, steps: int, position: int = 3) -> tuple[bytes, Done]:
        opening = self.openings[position]
        blank = Tally(
            seat=bytes(32), number=0, previous=bytes(32), start=0, count=0, root=bytes(32), block_number=0,
            block_hash=bytes(32),
        )  # fmt: skip
        receipt = Receipt(seat=self.seat, position=position, leaf=self.leaves[position])
        signature = self.job.sign(self.worker, receipt)
        said: tuple[Any, ...] = (RECEIPT, self.leaves[position], signature, blank, bytes(32), [])
        charge = (
            position, said, opening.unit_id, self._assign(position), opening.start, opening.end, opening.salt,
            opening.aux, opening.start, RIGHT, steps,
        )  # fmt: skip
        done = self.call("Accusations", "accuse", self.job.order, self.lease, charge, self.witnesses, by=self.job.payer)
        return done.value, done

    def fraud(self, claim: bytes, position: int) -> Done:
        other = Receipt(seat=self.seat, position=position, leaf=b"\x41" * 32)
        blank = Tally(
            seat=bytes(32), number=0, previous=bytes(32), start=0, count=0, root=bytes(32), block_number=0,
            block_hash=bytes(32),
        )  # fmt: skip
        said: tuple[Any, ...] = (RECEIPT, other.leaf, self.job.sign(self.worker, other), blank, bytes(32), [])
        path = merkle.path(self.leaves, position)
        claimed = (CLAIM, self.leaves[position], NOBODY, blank, claim, path)
        return self.call("Accusations", "fraud", self.job.order, self.lease, position, said, claimed)

    # The Court.

    def vote(self, case: bytes, members: int, value: bytes) -> tuple[Done, Done, Done]:
        """A whole panel for one value: (the first commitment, the first reveal, the count)."""
        self.blocks()
        self.call("Court", "advance", case)
        chosen = [self.read("Court", "memberAt", case, member) for member in range(members)]
        committed = [
            self.call("Court", "commit", case, member, attempt, keccak(value + SALT + word(account)),
                      by=self.auditors[account])
            for member, (account, attempt) in enumerate(chosen)
        ]  # fmt: skip
        revealed = [
            self.call("Court", "reveal", case, member, value, SALT, by=self.auditors[account])
            for member, (account, _) in enumerate(chosen)
        ]
        return committed[0], revealed[0], self.call("Court", "advance", case)

    # Internals.

    def _deploy(self) -> None:
        p, made = self.p, self.world.contracts
        where = dict(zip(_QUARRELS, (contract_address(self.world.bank.address, n) for n in range(4, 8)), strict=True))
        token, registry, escrow = made["Token"], made["Registry"], made["JobEscrow"]
        claims, accusations, court, coins = where.values()
        arguments: dict[str, tuple[Any, ...]] = {
            "Claims": (
                token, registry, escrow, accusations, court, coins,
                (p.claim_commit_s, p.claim_open_s, p.claim_reveal_s, p.claim_challenge_s),
            ),
            "Accusations": (token, registry, escrow, claims, court),
            "Court": (
                token, registry, claims, accusations, coins, p.court_quorum, p.court_panel, p.court_appeal_panel,
                p.court_member_fee_wei, (p.court_move_s, p.court_commit_s, p.court_reveal_s, p.court_appeal_s),
            ),
            "BlockhashRandomness": (),
        }  # fmt: skip
        assert [claims, accusations, court] == [self.world.claims, self.world.accusations, self.world.court]
        for name in _QUARRELS:
            raw = self.world.engine.transact(self.world.bank, b"", abi.load(name).creation(*arguments[name]))
            assert raw.output == where[name]
            made[name] = where[name]

    def _auditor(self, numeric_class: bytes) -> AccountKey:
        key = self.world.funded(self.world.parameters.slot_wei + 100 * WEI_PER_TOKEN)
        self._approve(key)
        self.call("Registry", "buySlots", key.address, 1, by=key)
        self.call("Registry", "setClass", numeric_class, by=key)
        return key

    def _approve(self, key: AccountKey) -> None:
        for name in ("Claims", "Accusations", "Court"):
            self.call("Token", "approve", self.world.contracts[name], 2**256 - 1, by=key)

    def _opening(self, position: int) -> Opening:
        return Opening(*(keccak(name.encode() + word(position)) for name in ("unit", "start", "end", "salt", "aux")))

    def _assign(self, position: int) -> tuple[bytes, bytes]:
        return self.job.sign(
            self.job.signer, Assign(seat=self.seat, position=position, unit_id=self.openings[position].unit_id)
        )


@functools.cache
def _prepared() -> Bench:
    return Bench()


def quarrel_report() -> dict[str, int]:
    """Gas of every call of the quarrel's contracts, the largest of its kind: sixteen samples, panels of 7 and 31."""
    report: dict[str, int] = {}
    bench = Bench.exact()
    claim, done = bench.claim()
    report["claim, 100 units, 7 witnesses"] = done.gas
    bench.blocks()
    report["capture"] = bench.call("Claims", "capture", claim).gas
    k = bench.read("Claims", "claimOf", claim)["k"]
    assert k == 16
    drawn = bench.read("Claims", "unitsOf", claim)
    ends = [bench.openings[i].end for i in drawn]
    ends[0] = RIGHT  # whoever audits sample 0 finds something else
    commits = [bench.commit(claim, sample, ends[sample])[1].gas for sample in range(k)]
    report["commit, a usual draw"] = sorted(commits)[k // 2]
    report["open, 16 leaves"] = bench.open_all(claim).gas
    report["reveal, MISMATCH"] = bench.reveal(claim, 0, ends[0]).gas
    report["reveal, MATCH"] = max(bench.reveal(claim, sample, ends[sample]).gas for sample in range(1, k))
    case = bench.case_of(claim, 0)
    committed, revealed, counted = bench.vote(case, 7, bench.openings[drawn[0]].end)
    report["vote, commit"] = committed.gas
    report["vote, reveal"] = revealed.gas
    report["advance, count of 7"] = counted.gas
    bench.wait(bench.p.court_appeal_s + 1)
    report["advance, share of 7"] = bench.call("Court", "advance", case).gas
    report["rule"] = bench.call("Claims", "rule", bench.lease, claim, 0).gas
    report["conclude, decision over 16 samples"] = bench.call("Claims", "conclude", bench.lease, claim).gas
    bench.wait(bench.p.claim_challenge_s + 1)
    report["conclude, payment with 16 auditors"] = bench.call("Claims", "conclude", bench.lease, claim).gas
    assert bench.read("JobEscrow", "seatOf", bench.seat)["paidUnits"] == POSITIONS
    return {**report, **_accusation_report(), **_failure_report(), **_long_draw()}


def _accusation_report() -> dict[str, int]:
    report: dict[str, int] = {}
    bench = Bench.exact()
    case, done = bench.accuse(steps=4)
    report["accuse, 7 witnesses"] = done.gas
    while bench.read("Court", "caseOf", case)["state"] == 1:
        report["post"] = bench.call("Court", "post", case, ACCUSED, by=bench.worker).gas
        report["answer"] = bench.call("Court", "answer", case, RIGHT, by=bench.job.payer).gas
    bench.vote(case, 7, RIGHT)
    report["appeal"] = _appealed(bench, case)
    _, _, counted = bench.vote(case, 31, RIGHT)
    report["advance, count of 31 and share of 7 and 31"] = counted.gas
    done = bench.call("Accusations", "acquitOrConvict", bench.lease, case)
    assert bench.read("JobEscrow", "lockLeft", bench.lease) == 0
    report["acquitOrConvict, convicted"] = done.gas
    return report


def _appealed(bench: Bench, case: bytes) -> int:
    return bench.call("Court", "appeal", case, by=bench.worker).gas


def _failure_report() -> dict[str, int]:
    bench = Bench.exact()
    claim, _ = bench.claim()
    bench.blocks()
    bench.call("Claims", "capture", claim)
    for sample in range(16):
        bench.commit(claim, sample, RIGHT)
    fraud = bench.fraud(claim, 5).gas
    bench.wait(3 * bench.p.claim_commit_s + bench.p.claim_open_s + 1)
    failed = bench.call("Claims", "conclude", bench.lease, claim)
    assert len(failed.of("AuditorPaid")) == 16
    return {"fraud, Receipt against root": fraud, "conclude, failure with 16 auditors": failed.gas}


def _long_draw() -> dict[str, int]:
    """What a commitment costs whose auditor the last attempt allowed found: the line through sixteen, drawn on."""
    bench = Bench(foreign=300)
    claim, _ = bench.claim()
    bench.blocks()
    bench.call("Claims", "capture", claim)
    attempts, gas = [], []
    for sample in range(16):
        account, _ = bench.read("Claims", "auditorAt", claim, sample, 0)
        if any(account):
            attempt, done = bench.commit(claim, sample, RIGHT)
            attempts.append(attempt)
            gas.append(done.gas)
    line = linear_regression(attempts, gas)
    limit = bench.read("Claims", "MAX_ATTEMPTS")
    return {"commit, the longest draw": round(line.intercept + (limit - 1) * line.slope)}


def main() -> None:
    """Print the table: `scripts/contracts gas`."""
    for what, gas in quarrel_report().items():
        print(f"{what:48} {gas:>9,}")


if __name__ == "__main__":
    main()
