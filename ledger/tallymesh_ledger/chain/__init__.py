"""The only way to the chain: JSON-RPC, transactions, the contracts' calls, and the registry as of a block."""

from __future__ import annotations

from tallymesh_ledger.chain.contract import Outcome, Refusal
from tallymesh_ledger.chain.contracts import Contracts
from tallymesh_ledger.chain.escrow import (
    Audit,
    Closing,
    Job,
    JobEscrow,
    Seat,
    SeatEnd,
    Seating,
    SeatStatus,
    Settlement,
)
from tallymesh_ledger.chain.rpc import Block, Rpc
from tallymesh_ledger.chain.staking import Candidate, Registry, Stake, Token
from tallymesh_ledger.chain.transactions import Mined, Sender

__all__ = [
    "Audit",
    "Block",
    "Candidate",
    "Closing",
    "Contracts",
    "Job",
    "JobEscrow",
    "Mined",
    "Outcome",
    "Refusal",
    "Registry",
    "Rpc",
    "Seat",
    "SeatEnd",
    "SeatStatus",
    "Seating",
    "Sender",
    "Settlement",
    "Stake",
    "Token",
]
