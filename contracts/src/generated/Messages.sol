// SPDX-License-Identifier: Apache-2.0
// Generated from the schema of the signed messages by tallymesh_ledger.solidity. Do not edit: run scripts/sync_abi.
pragma solidity ^0.8.28;

/// @notice The account says: this libp2p peer speaks for me. The peer's key signs the account back.
struct PeerBinding {
    bytes32 peerIdHash;
    address account;
    uint32 version;
}

/// @notice What a worker sells, gossiped until it expires.
struct Offer {
    address account;
    bytes32 peerIdHash;
    bytes32 numericClass;
    bool provisional;
    uint16 cores;
    uint32 memoryMib;
    uint32 diskMib;
    string gpus;
    uint32 cpuScore;
    uint96 askPrice;
    string addresses;
    bytes32 attestation;
    uint64 seq;
    uint40 issued;
    uint40 expires;
}

/// @notice What a payer buys; the escrow knows it by its hash.
struct Order {
    address payer;
    address signer;
    bytes32 template;
    bytes32 numericProfile;
    uint16 cores;
    uint32 memoryMib;
    uint32 diskMib;
    uint16 gpus;
    uint96 priceMax;
    uint96 wages;
    uint96 auditReserve;
    uint96 lockPerSeat;
    uint96 claimBond;
    uint16 auditRateBp;
    uint16 tallyUnits;
    uint40 claimWindow;
    uint40 evidenceWindow;
    uint8 auditors;
    bytes32 auditorsRoot;
    uint96 signerSeatMax;
    bool newcomers;
    uint40 deadline;
    bytes32 salt;
}

/// @notice Signed by signer and worker: n positions of one job at one price. Its digest is the seat's id.
struct Lease {
    bytes32 job;
    address worker;
    uint40 positions;
    uint96 price;
    uint64 workMs;
    bytes32 numericClass;
    uint96 lock;
    uint40 until;
    uint40 seatBy;
    bytes32 secret1;
    bytes32 secret2;
    uint64 nonce;
}

/// @notice Signer to worker: run this unit next, at this position. Positions are assigned once, in order.
struct Assign {
    bytes32 seat;
    uint40 position;
    bytes32 unitId;
}

/// @notice Worker: one unit's leaf. Goes to the payer together with its opening.
struct Receipt {
    bytes32 seat;
    uint40 position;
    bytes32 leaf;
}

/// @notice Worker (or the signer in its place): a run of units whose leaves can no longer change.
struct Tally {
    bytes32 seat;
    uint32 number;
    bytes32 previous;
    uint40 start;
    uint40 count;
    bytes32 root;
    uint64 blockNumber;
    bytes32 blockHash;
}

/// @notice Signer: calls one drawn auditor for one unit.
struct AuditOrder {
    bytes32 seat;
    uint32 tally;
    uint40 position;
    bytes32 unitId;
    uint8 reason;
    uint8 draw;
    uint16 attempt;
    address auditor;
    uint96 fee;
    uint40 commitBy;
}

/// @notice Auditor: bound to what it found before it sees what the worker said.
struct AuditCommit {
    bytes32 auditOrder;
    bytes32 commitment;
}

/// @notice Signer: the worker's opening, handed over after the commitment.
struct Open {
    bytes32 auditOrder;
    bytes32 commit;
    bytes32 end;
    bytes32 salt;
    bytes32 aux;
    bytes32 recheck;
}

/// @notice Auditor: opens its commitment and says what it found.
struct Verdict {
    bytes32 auditOrder;
    uint8 result;
    bytes32 end;
    bytes32 salt;
    bytes32 probe;
}

/// @notice Signer: a voucher for all units up to and including tally `number`, that anyone may settle.
struct Accept {
    bytes32 seat;
    uint32 tally;
    uint40 units;
    bytes32 chain;
    bytes32 nextSecret;
}

/// @notice Worker: the seat may close once this many units are paid.
struct Release {
    bytes32 seat;
    uint40 units;
}

/// @notice Signer: the job ends; units with a receipt by now count, the running ones do not.
struct Cancel {
    bytes32 seat;
    uint40 at_;
}

/// @notice Signer: asks for a tally of all positions below `position`; `final` says that nothing more will be assigned.
struct Close {
    bytes32 seat;
    uint40 position;
    bool final_;
}

/// @notice Worker: takes no further Assign on this seat.
struct Leave {
    bytes32 seat;
    string code;
}

/// @notice Worker, serving: the running hash of one answer.
struct Response {
    bytes32 seat;
    uint64 number;
    bytes32 requestHash;
    bytes32 running;
    bytes32 transcript;
    uint40 tokens;
    bool final_;
}

/// @notice Owner of an account, to whoever carries it: turn this much of the account's credit into stake.
struct RelayedBond {
    address account;
    uint96 amount;
    uint96 fee;
    uint64 nonce;
    uint40 deadline;
}

/// @notice Owner of an account, to whoever carries it: pay my credit out, and begin to unbond what I name.
struct RelayedWithdraw {
    address account;
    uint32 slots;
    bool deposit;
    uint96 fee;
    uint64 nonce;
    uint40 deadline;
}

/// @title Type hashes and struct hashes (EIP-712 `hashStruct`) of every signed message.
library Messages {
    uint8 internal constant AUDITORS_OPEN = 0;
    uint8 internal constant AUDITORS_GROUP = 1;
    uint8 internal constant AUDITORS_PAYER = 2;

    uint8 internal constant RESULT_MATCH = 1;
    uint8 internal constant RESULT_MISMATCH = 2;
    uint8 internal constant RESULT_UNAVAILABLE = 3;

    uint8 internal constant AUDIT_REASON_FIRST = 0;
    uint8 internal constant AUDIT_REASON_DRAWN = 1;
    uint8 internal constant AUDIT_REASON_FORCED = 2;
    uint8 internal constant AUDIT_REASON_CONFIRM = 3;

    bytes32 internal constant PEER_BINDING_TYPEHASH = keccak256(
        "PeerBinding(bytes32 peerIdHash,address account,uint32 version)"
    );

    function hash(PeerBinding memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(PEER_BINDING_TYPEHASH, m));
    }

    function hashCalldata(PeerBinding calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = PEER_BINDING_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 96)
            result := keccak256(free, 128)
        }
    }

    bytes32 internal constant OFFER_TYPEHASH = keccak256(
        "Offer(address account,bytes32 peerIdHash,bytes32 numericClass,bool provisional,uint16 cores,uint32 memoryMib,uint32 diskMib,string gpus,uint32 cpuScore,uint96 askPrice,string addresses,bytes32 attestation,uint64 seq,uint40 issued,uint40 expires)"
    );

    function hash(Offer memory m) internal pure returns (bytes32) {
        return keccak256(
            bytes.concat(
                abi.encode(OFFER_TYPEHASH, m.account, m.peerIdHash, m.numericClass, m.provisional, m.cores),
                abi.encode(m.memoryMib, m.diskMib, keccak256(bytes(m.gpus)), m.cpuScore, m.askPrice, keccak256(bytes(m.addresses))),
                abi.encode(m.attestation, m.seq, m.issued, m.expires)
            )
        );
    }

    bytes32 internal constant ORDER_TYPEHASH = keccak256(
        "Order(address payer,address signer,bytes32 template,bytes32 numericProfile,uint16 cores,uint32 memoryMib,uint32 diskMib,uint16 gpus,uint96 priceMax,uint96 wages,uint96 auditReserve,uint96 lockPerSeat,uint96 claimBond,uint16 auditRateBp,uint16 tallyUnits,uint40 claimWindow,uint40 evidenceWindow,uint8 auditors,bytes32 auditorsRoot,uint96 signerSeatMax,bool newcomers,uint40 deadline,bytes32 salt)"
    );

    function hash(Order memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(ORDER_TYPEHASH, m));
    }

    function hashCalldata(Order calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = ORDER_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 736)
            result := keccak256(free, 768)
        }
    }

    bytes32 internal constant LEASE_TYPEHASH = keccak256(
        "Lease(bytes32 job,address worker,uint40 positions,uint96 price,uint64 workMs,bytes32 numericClass,uint96 lock,uint40 until,uint40 seatBy,bytes32 secret1,bytes32 secret2,uint64 nonce)"
    );

    function hash(Lease memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(LEASE_TYPEHASH, m));
    }

    function hashCalldata(Lease calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = LEASE_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 384)
            result := keccak256(free, 416)
        }
    }

    bytes32 internal constant ASSIGN_TYPEHASH = keccak256(
        "Assign(bytes32 seat,uint40 position,bytes32 unitId)"
    );

    function hash(Assign memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(ASSIGN_TYPEHASH, m));
    }

    function hashCalldata(Assign calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = ASSIGN_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 96)
            result := keccak256(free, 128)
        }
    }

    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(bytes32 seat,uint40 position,bytes32 leaf)"
    );

    function hash(Receipt memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, m));
    }

    function hashCalldata(Receipt calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = RECEIPT_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 96)
            result := keccak256(free, 128)
        }
    }

    bytes32 internal constant TALLY_TYPEHASH = keccak256(
        "Tally(bytes32 seat,uint32 number,bytes32 previous,uint40 start,uint40 count,bytes32 root,uint64 blockNumber,bytes32 blockHash)"
    );

    function hash(Tally memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(TALLY_TYPEHASH, m));
    }

    function hashCalldata(Tally calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = TALLY_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 256)
            result := keccak256(free, 288)
        }
    }

    bytes32 internal constant AUDIT_ORDER_TYPEHASH = keccak256(
        "AuditOrder(bytes32 seat,uint32 tally,uint40 position,bytes32 unitId,uint8 reason,uint8 draw,uint16 attempt,address auditor,uint96 fee,uint40 commitBy)"
    );

    function hash(AuditOrder memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(AUDIT_ORDER_TYPEHASH, m));
    }

    function hashCalldata(AuditOrder calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = AUDIT_ORDER_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 320)
            result := keccak256(free, 352)
        }
    }

    bytes32 internal constant AUDIT_COMMIT_TYPEHASH = keccak256(
        "AuditCommit(bytes32 auditOrder,bytes32 commitment)"
    );

    function hash(AuditCommit memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(AUDIT_COMMIT_TYPEHASH, m));
    }

    function hashCalldata(AuditCommit calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = AUDIT_COMMIT_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 64)
            result := keccak256(free, 96)
        }
    }

    bytes32 internal constant OPEN_TYPEHASH = keccak256(
        "Open(bytes32 auditOrder,bytes32 commit,bytes32 end,bytes32 salt,bytes32 aux,bytes32 recheck)"
    );

    function hash(Open memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(OPEN_TYPEHASH, m));
    }

    function hashCalldata(Open calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = OPEN_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 192)
            result := keccak256(free, 224)
        }
    }

    bytes32 internal constant VERDICT_TYPEHASH = keccak256(
        "Verdict(bytes32 auditOrder,uint8 result,bytes32 end,bytes32 salt,bytes32 probe)"
    );

    function hash(Verdict memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(VERDICT_TYPEHASH, m));
    }

    function hashCalldata(Verdict calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = VERDICT_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 160)
            result := keccak256(free, 192)
        }
    }

    bytes32 internal constant ACCEPT_TYPEHASH = keccak256(
        "Accept(bytes32 seat,uint32 tally,uint40 units,bytes32 chain,bytes32 nextSecret)"
    );

    function hash(Accept memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(ACCEPT_TYPEHASH, m));
    }

    function hashCalldata(Accept calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = ACCEPT_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 160)
            result := keccak256(free, 192)
        }
    }

    bytes32 internal constant RELEASE_TYPEHASH = keccak256(
        "Release(bytes32 seat,uint40 units)"
    );

    function hash(Release memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(RELEASE_TYPEHASH, m));
    }

    function hashCalldata(Release calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = RELEASE_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 64)
            result := keccak256(free, 96)
        }
    }

    bytes32 internal constant CANCEL_TYPEHASH = keccak256(
        "Cancel(bytes32 seat,uint40 at)"
    );

    function hash(Cancel memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(CANCEL_TYPEHASH, m));
    }

    function hashCalldata(Cancel calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = CANCEL_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 64)
            result := keccak256(free, 96)
        }
    }

    bytes32 internal constant CLOSE_TYPEHASH = keccak256(
        "Close(bytes32 seat,uint40 position,bool final)"
    );

    function hash(Close memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLOSE_TYPEHASH, m));
    }

    function hashCalldata(Close calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = CLOSE_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 96)
            result := keccak256(free, 128)
        }
    }

    bytes32 internal constant LEAVE_TYPEHASH = keccak256(
        "Leave(bytes32 seat,string code)"
    );

    function hash(Leave memory m) internal pure returns (bytes32) {
        return keccak256(
            bytes.concat(
                abi.encode(LEAVE_TYPEHASH, m.seat, keccak256(bytes(m.code)))
            )
        );
    }

    bytes32 internal constant RESPONSE_TYPEHASH = keccak256(
        "Response(bytes32 seat,uint64 number,bytes32 requestHash,bytes32 running,bytes32 transcript,uint40 tokens,bool final)"
    );

    function hash(Response memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(RESPONSE_TYPEHASH, m));
    }

    function hashCalldata(Response calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = RESPONSE_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 224)
            result := keccak256(free, 256)
        }
    }

    bytes32 internal constant RELAYED_BOND_TYPEHASH = keccak256(
        "RelayedBond(address account,uint96 amount,uint96 fee,uint64 nonce,uint40 deadline)"
    );

    function hash(RelayedBond memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(RELAYED_BOND_TYPEHASH, m));
    }

    function hashCalldata(RelayedBond calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = RELAYED_BOND_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 160)
            result := keccak256(free, 192)
        }
    }

    bytes32 internal constant RELAYED_WITHDRAW_TYPEHASH = keccak256(
        "RelayedWithdraw(address account,uint32 slots,bool deposit,uint96 fee,uint64 nonce,uint40 deadline)"
    );

    function hash(RelayedWithdraw memory m) internal pure returns (bytes32) {
        return keccak256(abi.encode(RELAYED_WITHDRAW_TYPEHASH, m));
    }

    function hashCalldata(RelayedWithdraw calldata m) internal pure returns (bytes32 result) {
        bytes32 typeHash = RELAYED_WITHDRAW_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, 192)
            result := keccak256(free, 224)
        }
    }
}
