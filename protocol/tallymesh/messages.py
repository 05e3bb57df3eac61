"""The signed messages of the protocol, in the order in which they happen (docs/PROTOCOL.md section 2).

Each is an EIP-712 struct. Amounts are wei, times are whole seconds of Unix time as the chain counts it, work is in
reference-milliseconds (milliseconds x measured score). Bodies that a signature need not cover travel beside the
message (exchange.py). This module does not know how anything is signed or sent.
"""

from __future__ import annotations

from enum import IntEnum

from tallymesh.schema import U8, U16, U32, U40, U64, U96, Address, Bytes32, Flag, Message, Text


class Auditors(IntEnum):
    """From whom the auditors of a job are drawn."""

    OPEN = 0  # every slot of the Registry
    GROUP = 1  # the accounts under `auditors_root`
    PAYER = 2  # the payer's own node only: no claim, no slashing


class Result(IntEnum):
    """What an auditor says."""

    MATCH = 1
    MISMATCH = 2
    UNAVAILABLE = 3  # inputs could not be had, or did not match their names


class AuditReason(IntEnum):
    """Why a unit is audited."""

    FIRST = 0  # tally 1: the first unit of a seat
    DRAWN = 1  # by the seed
    FORCED = 2  # the form was right but the loss at the boundary was not
    CONFIRM = 3  # a MISMATCH calls two more auditors


class PeerBinding(Message, frozen=True, kw_only=True):
    """The account says: this libp2p peer speaks for me. The peer's key signs the account back."""

    TYPE = 1
    DOMAIN = "registry"
    peer_id_hash: Bytes32  # keccak256 of the peer id's multihash bytes
    account: Address
    version: U32  # the highest one counts


class Offer(Message, frozen=True, kw_only=True):
    """What a worker sells, gossiped until it expires."""

    TYPE = 2
    DOMAIN = "registry"
    account: Address
    peer_id_hash: Bytes32
    numeric_class: Bytes32  # zero while the canary runs: then `provisional` is set
    provisional: Flag
    cores: U16  # units side by side
    memory_mib: U32
    disk_mib: U32
    gpus: Text  # as tallymesh.cards has them, empty for none
    cpu_score: U32  # thousandths of the reference core
    ask_price: U96  # wei per reference-second
    addresses: Text  # multiaddrs joined by ","
    attestation: Bytes32  # content id of an attestation document, zero for none
    seq: U64  # a later offer of the account replaces an earlier one
    issued: U40
    expires: U40


class Order(Message, frozen=True, kw_only=True):
    """What a payer buys; the escrow knows it by its hash."""

    TYPE = 3
    DOMAIN = "escrow"
    payer: Address
    signer: Address  # a key that may sign for this job only
    template: Bytes32  # content id of the JobSpec: program, stages, inputs
    numeric_profile: Bytes32
    cores: U16
    memory_mib: U32
    disk_mib: U32
    gpus: U16
    price_max: U96  # wei per reference-second
    wages: U96
    audit_reserve: U96
    lock_per_seat: U96
    claim_bond: U96
    audit_rate_bp: U16
    tally_units: U16  # a tally closes after this many units
    claim_window: U40
    evidence_window: U40
    auditors: U8  # Auditors
    auditors_root: Bytes32
    signer_seat_max: U96  # how much of the wages the signer may seat without the payer's key
    newcomers: Flag
    deadline: U40
    salt: Bytes32


class Lease(Message, frozen=True, kw_only=True):
    """Signed by signer and worker: n positions of one job at one price. Its digest is the seat's id."""

    TYPE = 4
    DOMAIN = "escrow"
    job: Bytes32
    worker: Address
    positions: U40  # 0 … positions - 1
    price: U96  # wei per unit
    work_ms: U64  # declared work of one unit, reference-milliseconds
    numeric_class: Bytes32
    lock: U96
    until: U40
    seat_by: U40  # the seat must be on chain by then
    secret_1: Bytes32  # keccak of c_1
    secret_2: Bytes32  # keccak of c_2
    nonce: U64  # tells apart leases that agree in everything else


class Assign(Message, frozen=True, kw_only=True):
    """Signer to worker: run this unit next, at this position. Positions are assigned once, in order."""

    TYPE = 5
    DOMAIN = "escrow"
    seat: Bytes32
    position: U40
    unit_id: Bytes32


class Receipt(Message, frozen=True, kw_only=True):
    """Worker: one unit's leaf. Goes to the payer together with its opening."""

    TYPE = 6
    DOMAIN = "escrow"
    seat: Bytes32
    position: U40
    leaf: Bytes32


class Tally(Message, frozen=True, kw_only=True):
    """Worker (or the signer in its place): a run of units whose leaves can no longer change."""

    TYPE = 7
    DOMAIN = "escrow"
    seat: Bytes32
    number: U32  # 1, 2, …
    previous: Bytes32  # chain value before this tally; zero for the first
    start: U40  # first position
    count: U40
    root: Bytes32
    block_number: U64  # final, at most an hour old: whose slots the auditors are drawn from
    block_hash: Bytes32


class AuditOrder(Message, frozen=True, kw_only=True):
    """Signer: calls one drawn auditor for one unit."""

    TYPE = 8
    DOMAIN = "escrow"
    seat: Bytes32
    tally: U32
    position: U40
    unit_id: Bytes32
    reason: U8  # AuditReason
    draw: U8  # 0 for the first auditor of the unit, 1 and 2 for the confirming ones, then the payer's
    attempt: U16
    auditor: Address
    fee: U96
    commit_by: U40


class AuditCommit(Message, frozen=True, kw_only=True):
    """Auditor: bound to what it found before it sees what the worker said."""

    TYPE = 9
    DOMAIN = "escrow"
    audit_order: Bytes32  # digest
    commitment: Bytes32  # keccak(abi.encode(end, salt, auditor, probe))


class Open(Message, frozen=True, kw_only=True):
    """Signer: the worker's opening, handed over after the commitment."""

    TYPE = 10
    DOMAIN = "escrow"
    audit_order: Bytes32
    commit: Bytes32  # digest of the AuditCommit
    end: Bytes32
    salt: Bytes32
    aux: Bytes32
    recheck: Bytes32  # hash of the secret that selects verdicts for a re-check


class Verdict(Message, frozen=True, kw_only=True):
    """Auditor: opens its commitment and says what it found."""

    TYPE = 11
    DOMAIN = "escrow"
    audit_order: Bytes32
    result: U8  # Result
    end: Bytes32
    salt: Bytes32
    probe: Bytes32


class Accept(Message, frozen=True, kw_only=True):
    """Signer: a voucher for all units up to and including tally `number`, that anyone may settle."""

    TYPE = 12
    DOMAIN = "escrow"
    seat: Bytes32
    tally: U32
    units: U40  # cumulative
    chain: Bytes32
    next_secret: Bytes32  # keccak of c_{tally + 2}


class Release(Message, frozen=True, kw_only=True):
    """Worker: the seat may close once this many units are paid."""

    TYPE = 13
    DOMAIN = "escrow"
    seat: Bytes32
    units: U40


class Cancel(Message, frozen=True, kw_only=True):
    """Signer: the job ends; units with a receipt by now count, the running ones do not."""

    TYPE = 14
    DOMAIN = "escrow"
    seat: Bytes32
    at: U40


class Close(Message, frozen=True, kw_only=True):
    """Signer: asks for a tally of all positions below `position`; `final` says that nothing more will be assigned."""

    TYPE = 15
    DOMAIN = "escrow"
    seat: Bytes32
    position: U40
    final: Flag


class Leave(Message, frozen=True, kw_only=True):
    """Worker: takes no further Assign on this seat."""

    TYPE = 16
    DOMAIN = "escrow"
    seat: Bytes32
    code: Text


class Response(Message, frozen=True, kw_only=True):
    """Worker, serving: the running hash of one answer."""

    TYPE = 17
    DOMAIN = "escrow"
    seat: Bytes32
    number: U64
    request_hash: Bytes32
    running: Bytes32
    transcript: Bytes32
    tokens: U40
    final: Flag


class RelayedBond(Message, frozen=True, kw_only=True):
    """Owner of an account, to whoever carries it: turn this much of the account's credit into stake."""

    TYPE = 18
    DOMAIN = "registry"
    account: Address
    amount: U96  # to the account's deposit, each whole slot in which becomes one; 2^96 - 1: all but the fee
    fee: U96  # out of the credit, to the carrier
    nonce: U64  # Registry.nonceOf(account)
    deadline: U40


class RelayedWithdraw(Message, frozen=True, kw_only=True):
    """Owner of an account, to whoever carries it: pay my credit out, and begin to unbond what I name."""

    TYPE = 19
    DOMAIN = "registry"
    account: Address
    slots: U32  # how many live slots to release; the carrier names them, all are alike
    deposit: Flag  # release the deposit too
    fee: U96  # out of the credit, to the carrier
    nonce: U64
    deadline: U40


ALL: tuple[type[Message], ...] = (
    PeerBinding, Offer, Order, Lease, Assign, Receipt, Tally, AuditOrder, AuditCommit, Open, Verdict, Accept, Release,
    Cancel, Close, Leave, Response, RelayedBond, RelayedWithdraw,
)  # fmt: skip
BY_TYPE: dict[int, type[Message]] = {message.TYPE: message for message in ALL}
