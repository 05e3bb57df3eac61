"""The chain itself: py-evm with our clock. It executes, mines, calls and estimates; it knows no JSON and no network.

Each transaction is a block of its own, mined when it comes. A block's time is the clock's: several blocks of one second
share it, as on many layer-2 chains. (One second more for each block, as py-evm wants it, lets the chain's time run away
from the clock under load: 40 transactions a second would age every deadline forty times as fast.)
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import rlp
from eth import EVM_RECURSION_LIMIT, constants
from eth.chains.base import MiningChain
from eth.db.atomic import AtomicDB
from eth.db.schema import SchemaV1
from eth.exceptions import CanonicalHeadNotFound, HeaderNotFound, Revert
from eth.rlp.sedes import chain_gaps
from eth.vm.spoof import SpoofTransaction
from eth_utils import ValidationError

from tallymesh_ledger.embedded_chain import render
from tallymesh_ledger.embedded_chain.rules import ClockVM
from tallymesh_ledger.embedded_chain.store import Store

# py-evm needs deep recursion for 1,024 nested calls, but a library below it (py_ecc) allows 100,000 frames: with that a
# request of many "[" overflows the C stack in the JSON parser and ends the process, instead of raising RecursionError.
sys.setrecursionlimit(EVM_RECURSION_LIMIT)

GAS_LIMIT = 30_000_000  # as on the public chain
COINBASE = bytes(20)
GAS_PRICE_TIP = 10**9
ESTIMATE_STEPS = 12  # when the first guess of the gas limit is too low, and the next ones
STIPEND = 2_300  # gas that a call with a value is given
KEPT_CALLS = 2_048  # answers: what the nodes of a local network ask again while nothing changes
KEPT_BYTES = 2_048  # question and answer of one that is kept; views of contracts have a few words


class Reverted(Exception):
    """A call or an estimate failed; `data` is what the contract said (may be empty), `reason` what the machine says."""

    def __init__(self, data: bytes, reason: str) -> None:
        self.data = data
        self.reason = reason
        super().__init__(reason)


class Refused(Exception):
    """A transaction that no block can hold: wrong nonce, no funds, too much gas."""


class CallRequest(msgspec.Struct, frozen=True):
    """What `eth_call` and `eth_estimateGas` run."""

    sender: bytes
    to: bytes  # empty creates a contract
    data: bytes
    value: int = 0
    gas: int = 0  # 0: as much as a block holds


class Evm:
    """One chain in one store. Not thread-safe: one task at a time."""

    def __init__(
        self, store: Store, chain_id: int, balances: dict[bytes, int], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._clock = clock
        self.chain_id = chain_id
        chain_class: Any = type(
            "EmbeddedChain", (MiningChain,), {"chain_id": chain_id, "vm_configuration": ((0, ClockVM),)}
        )
        database = AtomicDB(store)
        try:
            self._chain = chain_class(database)
        except CanonicalHeadNotFound:
            with store.block():
                self._chain = chain_class.from_genesis(database, self._genesis(), _alloc(balances))
        self._snapshots: list[bytes] = []
        self._answers: dict[tuple[bytes, CallRequest], bytes] = {}  # under a block's hash, or a state's root

    def _genesis(self) -> dict[str, Any]:
        return {
            "coinbase": COINBASE,
            "difficulty": constants.POST_MERGE_DIFFICULTY,
            "extra_data": b"",
            "gas_limit": GAS_LIMIT,
            "mix_hash": constants.POST_MERGE_MIX_HASH,
            "nonce": constants.POST_MERGE_NONCE,
            "receipt_root": constants.BLANK_ROOT_HASH,
            "timestamp": int(self._clock()),
            "transaction_root": constants.BLANK_ROOT_HASH,
        }

    # ---- headers

    @property
    def head(self) -> Any:
        """Header of the newest block."""
        return self._chain.get_canonical_head()

    def header(self, number: int) -> Any | None:
        try:
            return self._chain.get_canonical_block_header_by_number(number)
        except HeaderNotFound:
            return None

    def header_by_hash(self, hash_: bytes) -> Any | None:
        """Header of a block of the canonical chain; one that was wound back is not known any more."""
        try:
            header = self._chain.get_block_header_by_hash(hash_)
        except HeaderNotFound:
            return None
        return header if self.header(header.block_number) == header else None

    def _next_header(self) -> Any:
        parent = self.head
        timestamp = max(int(self._clock()), parent.timestamp)  # a clock that was set back stands still for a while
        # the gas limit stays what it was: py-evm's default would let it drift
        return self._chain.create_header_from_parent(
            parent, timestamp=timestamp, gas_limit=parent.gas_limit, coinbase=COINBASE, mix_hash=os.urandom(32)
        )

    # ---- blocks

    def decode(self, raw: bytes) -> Any:
        """The signed transaction in `raw`; Refused where it is none of this chain."""
        try:
            transaction = ClockVM.get_transaction_builder().decode(raw)
            transaction.validate()
            sender = transaction.sender
        except Exception as error:  # rlp, eth-keys and py-evm each raise their own
            raise Refused(f"invalid transaction: {error}") from None
        assert len(sender) == 20
        if transaction.type_id is not None and transaction.type_id == 3:
            raise Refused("transaction type not supported: blobs")
        if transaction.chain_id not in (None, self.chain_id):
            raise Refused(f"invalid chain id for signer: have {transaction.chain_id} want {self.chain_id}")
        return transaction

    def check_funds(self, transaction: Any) -> None:
        """Refused where the sender could not pay for it now: a pool would keep it for nothing."""
        most = transaction.value + transaction.gas * transaction.max_fee_per_gas
        if self.state_at(self.head).get_balance(transaction.sender) < most:
            raise Refused("insufficient funds for gas * price + value")

    def mine(self, transaction: Any | None = None) -> None:
        """A new block, with the transaction or empty. Refused where it does not fit; nothing changed then."""
        header = self._next_header()
        vm = self._chain.get_vm(header)
        transactions = () if transaction is None else (transaction,)
        try:
            # the try also covers transactions that a block's rules refuse: they are found before anything is written
            with self._store.block():
                header, receipts, computations = vm.apply_all_transactions(transactions, header)
                block = vm.set_block_transactions_and_withdrawals(vm.get_block(), header, transactions, receipts)
                mined = vm.mine_block(block).block
                self._chain.chaindb.persist_block(mined)
                for position, (receipt, computation) in enumerate(zip(receipts, computations, strict=True)):
                    self._index(mined, position, receipt, computation)
        except ValidationError as error:
            raise Refused(_plain(error)) from None

    def _index(self, block: Any, position: int, receipt: Any, computation: Any) -> None:
        assert position == 0, "one transaction a block: indexes and gas below count on it"
        transaction, number = block.transactions[position], block.number
        created = computation.msg.storage_address if computation.msg.is_create else None
        body = render.transaction(transaction, block.header, position)
        logs = [render.log(entry, transaction, block.header, position, i) for i, entry in enumerate(receipt.logs)]
        shown = render.receipt(receipt, transaction, block.header, position, created, logs)
        self._store.add_transaction(transaction.hash, number, position, json.dumps(body), json.dumps(shown))
        for i, (entry, log) in enumerate(zip(receipt.logs, logs, strict=True)):
            topics = [topic.to_bytes(32, "big") for topic in entry.topics]
            self._store.add_log(number, i, entry.address, topics, json.dumps(log))

    # ---- state

    def state_at(self, header: Any) -> Any:
        """State after the block; reading it changes nothing."""
        return self._chain.get_vm(header).state

    def call(self, request: CallRequest, header: Any) -> bytes:
        """What the call returns in the context and on the state of the block. Raises Reverted."""
        for place in (header.state_root, header.hash):
            kept = self._answers.get((place, request))
            if kept is not None:
                return kept
        computation = self._run(request, header)
        _raise_if_failed(computation)
        output = bytes(computation.output)
        if len(request.data) + len(output) <= KEPT_BYTES:
            place = header.hash if computation.state.saw_block else header.state_root
            self._answers[place, request] = output
            if len(self._answers) > KEPT_CALLS:
                del self._answers[next(iter(self._answers))]
        return output

    def estimate(self, request: CallRequest) -> int:
        """Gas limit with which the call succeeds in the next block. Raises Reverted where it never does."""
        context = self._next_header()
        free = functools.partial(self._run, header=context)
        computation = free(request)
        _raise_if_failed(computation)
        # before refunds, and never below what the data alone must cost (EIP-7623)
        high = request.gas or GAS_LIMIT
        used = high - computation.get_gas_remaining()
        guess: int = max(used, used - computation.get_gas_refund() + computation.data_floor_gas)
        if computation.children:
            # a call inside a call keeps back 1/64 of its gas (EIP-150), and a stipend must be left over to be given
            guess = min(high, guess + guess // 63 + STIPEND)
        for _ in range(ESTIMATE_STEPS):
            if not free(msgspec.structs.replace(request, gas=guess)).is_error:
                return guess
            guess = min(high, guess + guess // 8)
        return high

    def _run(self, request: CallRequest, header: Any) -> Any:
        vm = self._chain.get_vm(header.copy(base_fee_per_gas=0))
        state = vm.state
        plain = vm.create_unsigned_transaction(
            nonce=state.get_nonce(request.sender), gas_price=0, gas=request.gas or GAS_LIMIT,
            to=request.to, value=request.value, data=request.data,
        )  # fmt: skip
        try:
            computation = state.apply_transaction(SpoofTransaction(plain, from_=request.sender))
        except ValidationError as error:
            raise Reverted(b"", _plain(error)) from None
        return computation

    # ---- winding back

    def snapshot(self) -> int:
        """Remember the newest block; the number returned goes to `revert`."""
        self._snapshots.append(self.head.hash)
        return len(self._snapshots)

    def revert(self, snapshot: int) -> bool:
        """Make the remembered block the newest again, as a reorganisation would. It and later snapshots are used up."""
        if not 0 < snapshot <= len(self._snapshots):
            return False
        header = self.header_by_hash(self._snapshots[snapshot - 1])
        del self._snapshots[snapshot - 1 :]
        if header is None:
            return False
        with self._store.block():
            for number in range(header.block_number + 1, self.head.block_number + 1):
                self._store.delete(SchemaV1.make_block_number_to_hash_lookup_key(number))
            self._store[SchemaV1.make_canonical_head_hash_lookup_key()] = header.hash
            whole = rlp.encode(((), header.block_number + 1), sedes=chain_gaps)  # no holes below, nothing above
            self._store[SchemaV1.make_header_chain_gaps_lookup_key()] = whole
            self._store[SchemaV1.make_chain_gaps_lookup_key()] = whole
            self._store.forget_above(header.block_number)
        return True


def _alloc(balances: dict[bytes, int]) -> dict[bytes, dict[str, Any]]:
    return {who: {"balance": wei, "nonce": 0, "code": b"", "storage": {}} for who, wei in balances.items()}


def _plain(error: ValidationError) -> str:
    """py-evm's words, in the ones that every client of Ethereum knows."""
    text = str(error)
    if "Invalid transaction nonce" in text:
        return f"nonce too low: {text}"
    if "afford" in text or "enough balance" in text:
        return f"insufficient funds for gas * price + value: {text}"
    if "max fee per gas" in text:
        return f"max fee per gas less than block base fee: {text}"
    if "gas limit" in text:
        return f"exceeds block gas limit: {text}"
    return text


def _raise_if_failed(computation: Any) -> None:
    if computation.is_error:
        if isinstance(computation.error, Revert):
            raise Reverted(bytes(computation.output), "execution reverted")
        raise Reverted(b"", f"execution failed: {type(computation.error).__name__}: {computation.error}")
