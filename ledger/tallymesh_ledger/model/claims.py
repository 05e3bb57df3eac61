"""Pays a worker whose payer is silent (IClaims): a sample of its claim is recomputed by drawn auditors."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tallymesh.messages import Assign, Lease, Order, Tally
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.draws import MAX_ATTEMPTS, SEED_DELAY, Parties, units, words
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Revert
from tallymesh_ledger.model.quarrels import (
    OPEN_TO_ALL,
    Claim,
    Finding,
    Heard,
    Opening,
    Quarrels,
    Sample,
    State,
    leaf,
    stands,
)
from tallymesh_ledger.model.rulings import CLAIM_TALLY, DOMAIN_CASE, Rulings
from tallymesh_ledger.model.signatures import Signature, digest, recovered, says
from tallymesh_ledger.model.terms import SeatState
from tallymesh_ledger.model.trials import Dispute

DOMAIN_SEED = keccak(b"tallymesh.seed.1")
DOMAIN_CLAIM = keccak(b"tallymesh.claim.1")
RANKS = 3  # auditors that may be asked for one sample, one after the other
SAMPLES_MIN = 2
SAMPLES_MAX = 16
BP = 10_000


class Claims(Rulings):
    """From a claim to its decision; what it costs whom stands in rulings.py."""

    def claim(
        self,
        caller: bytes,
        order: Order,
        lease: Lease,
        tally: Tally,
        signature: Signature,
        witnesses: Sequence[int],
    ) -> bytes:
        bond, fee = order.claim_bond, self._court.fee()
        if order.auditors != OPEN_TO_ALL:
            raise Revert("NotOpenToAll")
        if bond < fee:
            raise Revert("BondTooSmall", bond, fee)
        seat_id, seat = self._escrow.hold(self.address, order, lease)
        if seat.state != SeatState.OPEN:
            raise Revert("SeatNotOpen", seat_id)
        if tally.seat != seat_id or tally.number != CLAIM_TALLY:
            raise Revert("BadTally")
        if not says(lease.worker, digest(self._escrow.domain, tally), signature, caller):
            raise Revert("BadSignature", lease.worker)
        if seat.bond < bond:
            raise Revert("BondTooSmall", seat.bond, bond)
        quarrels = self._quarrels[seat_id]
        if quarrels.claim != ZERO_WORD:
            raise Revert("ClaimLive", quarrels.claim)
        if self._machine.now > seat.until + order.claim_window:
            raise Revert("TooLate", seat.until + order.claim_window)
        start, count = tally.start, tally.count
        fits = start <= seat.paid_units < start + count <= seat.units and count <= 2 * order.tally_units
        if not fits:
            raise Revert("BadRange")
        if start < quarrels.claimed_to:
            raise Revert("AlreadyClaimed", quarrels.claimed_to)
        parties = Parties(lease.worker, ZERO_ADDRESS, order.payer, order.signer, lease.numeric_class)
        self._court.check_members(parties, witnesses)
        id_ = words(DOMAIN_CLAIM, seat_id, tally.root, start, count)
        sampled = max(SAMPLES_MIN, -(-order.audit_rate_bp * count // BP))
        self._claims[id_] = Claim(
            state=State.PENDING,
            k=min(count, sampled, SAMPLES_MAX),
            from_=start,
            count=count,
            slots=self._registry.slot_count(),
            block_number=self._machine.block_number,
            price=lease.price,
            bond=bond,
            left=bond,
            claimer=caller,
            seat=seat_id,
            root=tally.root,
            chain=words(tally.previous, tally.root, start, count),
        )
        self._parties[id_] = parties
        self._quarrels[seat_id] = Quarrels(id_, start + count)
        self._emit(
            "Claimed",
            claim=id_,
            seat=seat_id,
            claimer=caller,
            root=tally.root,
            **{"from": start},
            count=count,
            bond=bond,
            seedBlock=self._machine.block_number + SEED_DELAY,
        )
        self._token.transfer_from(self.address, caller, self.address, bond)
        return id_

    def capture(self, caller: bytes, id_: bytes) -> None:
        claim = self._in_state(id_, State.PENDING)
        seed_block = claim.block_number + SEED_DELAY
        if self._machine.block_number <= seed_block:
            raise Revert("TooEarly", 0)
        value = self._randomness.value_at(seed_block)
        if value == ZERO_WORD:
            raise Revert("TooLate", 0)
        seed = words(DOMAIN_SEED, claim.seat, 0, claim.root, value)
        now = self._machine.now
        until = now + RANKS * self.terms.commit_window + self.terms.open_window
        self._claims[id_] = replace(claim, state=State.SAMPLING, seed=seed, sampled_at=now, deadline=until)
        self._emit("Captured", claim=id_, seed=seed, k=claim.k, openBy=until)

    def commit(self, caller: bytes, id_: bytes, sample: int, rank: int, attempt: int, commitment: bytes) -> None:
        claim = self._in_state(id_, State.SAMPLING)
        until = claim.sampled_at + RANKS * self.terms.commit_window
        if claim.opened or self._machine.now >= until:
            raise Revert("TooLate", until)
        if sample >= claim.k or self._samples[id_, sample].heard != Heard.NONE:
            raise Revert("BadSample", sample)
        possible = rank < RANKS and attempt < MAX_ATTEMPTS
        if not possible or self.auditor_at(id_, sample, rank) != (caller, attempt):
            raise Revert("NotDrawn", caller, sample, attempt)
        begins = claim.sampled_at + rank * self.terms.commit_window
        if self._machine.now < begins:
            raise Revert("TooEarly", begins)
        self._samples[id_, sample] = Sample(Heard.COMMITTED, caller, commitment)
        self._claims[id_] = replace(claim, committed=claim.committed + 1)
        self._emit("AuditCommitted", claim=id_, sample=sample, auditor=caller, rank=rank)
        self._token.transfer_from(self.address, caller, self.address, claim.bond)

    def open(self, caller: bytes, id_: bytes, openings: Sequence[Opening]) -> None:
        claim = self._in_state(id_, State.SAMPLING)
        begins = claim.sampled_at + RANKS * self.terms.commit_window
        if claim.committed < claim.k and self._machine.now < begins:
            raise Revert("TooEarly", begins)
        self._by(claim.deadline)
        drawn = units(claim.seed, claim.count, claim.k)
        for opening in openings:
            if opening.sample >= claim.k:
                raise Revert("BadSample", opening.sample)
            sample = self._samples[id_, opening.sample]
            if sample.opened != ZERO_WORD:
                continue
            index = drawn[opening.sample]
            position = claim.from_ + index
            assign = Assign(seat=claim.seat, position=position, unit_id=opening.unit_id)
            signer = recovered(digest(self._escrow.domain, assign), *opening.assign)
            value = leaf(claim.seat, position, opening)
            if not stands(claim.root, claim.count, index, value, opening.path) or signer != self._parties[id_].signer:
                raise Revert("BadOpening", opening.sample)
            self._samples[id_, opening.sample] = replace(sample, opened=words(opening.start, opening.end))
            claim = replace(claim, opened=claim.opened + 1)
            self._emit(
                "LeafOpened",
                claim=id_,
                sample=opening.sample,
                position=position,
                unitId=opening.unit_id,
                start=opening.start,
                end=opening.end,
                aux=opening.aux,
            )
        if claim.opened == claim.k:
            until = self._machine.now + self.terms.reveal_window
            claim = replace(claim, state=State.REVEALING, deadline=until)
        self._claims[id_] = claim

    def reveal(self, caller: bytes, id_: bytes, sample: int, finding: Finding) -> None:
        claim = self._in_state(id_, State.REVEALING)
        self._by(claim.deadline)
        if sample >= claim.k:
            raise Revert("BadSample", sample)
        said = self._samples[id_, sample]
        if said.auditor != caller or said.heard != Heard.COMMITTED:
            raise Revert("NotYours", sample)
        f = finding
        if words(f.opened_start, f.opened_end) != said.opened:
            raise Revert("BadOpening", sample)
        if words(f.end, f.salt, caller, f.probe) != said.commitment:
            raise Revert("BadReveal", said.commitment)
        if f.end == ZERO_WORD:
            heard = Heard.UNAVAILABLE
        elif (f.start, f.end) == (f.opened_start, f.opened_end):
            heard = Heard.MATCH
        else:
            heard = Heard.DISPUTED
        disputed = heard == Heard.DISPUTED
        self._samples[id_, sample] = replace(said, heard=heard)
        self._claims[id_] = replace(claim, revealed=claim.revealed + 1, in_court=claim.in_court + disputed)
        self._emit("AuditRevealed", claim=id_, sample=sample, auditor=caller, heard=heard)
        if not disputed:
            self._credits[caller] += claim.bond
            return
        case = words(DOMAIN_CASE, id_, sample)
        self._emit("SampleDisputed", claim=id_, sample=sample, courtCase=case)
        parties = self._parties[id_]._replace(accuser=caller)
        dispute = Dispute(f.opened_start, f.opened_end, f.start, f.end, f.steps)
        self._court.open(self.address, case, parties, dispute)
