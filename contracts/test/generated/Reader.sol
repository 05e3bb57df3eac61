// SPDX-License-Identifier: Apache-2.0
// Generated from the schema of the signed messages by tallymesh_ledger.solidity. Do not edit: run scripts/sync_abi.
pragma solidity ^0.8.28;

import {Accept, Assign, AuditCommit, AuditOrder, Cancel, Close, Lease, Leave, Messages, Offer, Open, Order, PeerBinding, Receipt, RelayedBond, RelayedWithdraw, Release, Response, Tally, Verdict} from "../../src/generated/Messages.sol";
import {Vm} from "../Base.sol";

/// @title Golden vectors as the structs of the contracts.
library Reader {
    uint256 internal constant KINDS = 19;
    error UnknownKind(string kind);

    /// @param at_ Path of the vector's fields in the JSON text.
    function structHash(Vm vm, string memory kind, string memory json, string memory at_)
        internal
        pure
        returns (bytes32)
    {
        bytes32 name = keccak256(bytes(kind));
        if (name == keccak256("PeerBinding")) return Messages.hash(readPeerBinding(vm, json, at_));
        if (name == keccak256("Offer")) return Messages.hash(readOffer(vm, json, at_));
        if (name == keccak256("Order")) return Messages.hash(readOrder(vm, json, at_));
        if (name == keccak256("Lease")) return Messages.hash(readLease(vm, json, at_));
        if (name == keccak256("Assign")) return Messages.hash(readAssign(vm, json, at_));
        if (name == keccak256("Receipt")) return Messages.hash(readReceipt(vm, json, at_));
        if (name == keccak256("Tally")) return Messages.hash(readTally(vm, json, at_));
        if (name == keccak256("AuditOrder")) return Messages.hash(readAuditOrder(vm, json, at_));
        if (name == keccak256("AuditCommit")) return Messages.hash(readAuditCommit(vm, json, at_));
        if (name == keccak256("Open")) return Messages.hash(readOpen(vm, json, at_));
        if (name == keccak256("Verdict")) return Messages.hash(readVerdict(vm, json, at_));
        if (name == keccak256("Accept")) return Messages.hash(readAccept(vm, json, at_));
        if (name == keccak256("Release")) return Messages.hash(readRelease(vm, json, at_));
        if (name == keccak256("Cancel")) return Messages.hash(readCancel(vm, json, at_));
        if (name == keccak256("Close")) return Messages.hash(readClose(vm, json, at_));
        if (name == keccak256("Leave")) return Messages.hash(readLeave(vm, json, at_));
        if (name == keccak256("Response")) return Messages.hash(readResponse(vm, json, at_));
        if (name == keccak256("RelayedBond")) return Messages.hash(readRelayedBond(vm, json, at_));
        if (name == keccak256("RelayedWithdraw")) return Messages.hash(readRelayedWithdraw(vm, json, at_));
        revert UnknownKind(kind);
    }

    function readPeerBinding(Vm vm, string memory json, string memory at_) private pure returns (PeerBinding memory m) {
        m.peerIdHash = vm.parseJsonBytes32(json, string.concat(at_, ".peerIdHash"));
        m.account = vm.parseJsonAddress(json, string.concat(at_, ".account"));
        m.version = uint32(vm.parseJsonUint(json, string.concat(at_, ".version")));
    }

    function readOffer(Vm vm, string memory json, string memory at_) private pure returns (Offer memory m) {
        m.account = vm.parseJsonAddress(json, string.concat(at_, ".account"));
        m.peerIdHash = vm.parseJsonBytes32(json, string.concat(at_, ".peerIdHash"));
        m.numericClass = vm.parseJsonBytes32(json, string.concat(at_, ".numericClass"));
        m.provisional = vm.parseJsonBool(json, string.concat(at_, ".provisional"));
        m.cores = uint16(vm.parseJsonUint(json, string.concat(at_, ".cores")));
        m.memoryMib = uint32(vm.parseJsonUint(json, string.concat(at_, ".memoryMib")));
        m.diskMib = uint32(vm.parseJsonUint(json, string.concat(at_, ".diskMib")));
        m.gpus = vm.parseJsonString(json, string.concat(at_, ".gpus"));
        m.cpuScore = uint32(vm.parseJsonUint(json, string.concat(at_, ".cpuScore")));
        m.askPrice = uint96(vm.parseJsonUint(json, string.concat(at_, ".askPrice")));
        m.addresses = vm.parseJsonString(json, string.concat(at_, ".addresses"));
        m.attestation = vm.parseJsonBytes32(json, string.concat(at_, ".attestation"));
        m.seq = uint64(vm.parseJsonUint(json, string.concat(at_, ".seq")));
        m.issued = uint40(vm.parseJsonUint(json, string.concat(at_, ".issued")));
        m.expires = uint40(vm.parseJsonUint(json, string.concat(at_, ".expires")));
    }

    function readOrder(Vm vm, string memory json, string memory at_) private pure returns (Order memory m) {
        m.payer = vm.parseJsonAddress(json, string.concat(at_, ".payer"));
        m.signer = vm.parseJsonAddress(json, string.concat(at_, ".signer"));
        m.template = vm.parseJsonBytes32(json, string.concat(at_, ".template"));
        m.numericProfile = vm.parseJsonBytes32(json, string.concat(at_, ".numericProfile"));
        m.cores = uint16(vm.parseJsonUint(json, string.concat(at_, ".cores")));
        m.memoryMib = uint32(vm.parseJsonUint(json, string.concat(at_, ".memoryMib")));
        m.diskMib = uint32(vm.parseJsonUint(json, string.concat(at_, ".diskMib")));
        m.gpus = uint16(vm.parseJsonUint(json, string.concat(at_, ".gpus")));
        m.priceMax = uint96(vm.parseJsonUint(json, string.concat(at_, ".priceMax")));
        m.wages = uint96(vm.parseJsonUint(json, string.concat(at_, ".wages")));
        m.auditReserve = uint96(vm.parseJsonUint(json, string.concat(at_, ".auditReserve")));
        m.lockPerSeat = uint96(vm.parseJsonUint(json, string.concat(at_, ".lockPerSeat")));
        m.claimBond = uint96(vm.parseJsonUint(json, string.concat(at_, ".claimBond")));
        m.auditRateBp = uint16(vm.parseJsonUint(json, string.concat(at_, ".auditRateBp")));
        m.tallyUnits = uint16(vm.parseJsonUint(json, string.concat(at_, ".tallyUnits")));
        m.claimWindow = uint40(vm.parseJsonUint(json, string.concat(at_, ".claimWindow")));
        m.evidenceWindow = uint40(vm.parseJsonUint(json, string.concat(at_, ".evidenceWindow")));
        m.auditors = uint8(vm.parseJsonUint(json, string.concat(at_, ".auditors")));
        m.auditorsRoot = vm.parseJsonBytes32(json, string.concat(at_, ".auditorsRoot"));
        m.signerSeatMax = uint96(vm.parseJsonUint(json, string.concat(at_, ".signerSeatMax")));
        m.newcomers = vm.parseJsonBool(json, string.concat(at_, ".newcomers"));
        m.deadline = uint40(vm.parseJsonUint(json, string.concat(at_, ".deadline")));
        m.salt = vm.parseJsonBytes32(json, string.concat(at_, ".salt"));
    }

    function readLease(Vm vm, string memory json, string memory at_) private pure returns (Lease memory m) {
        m.job = vm.parseJsonBytes32(json, string.concat(at_, ".job"));
        m.worker = vm.parseJsonAddress(json, string.concat(at_, ".worker"));
        m.positions = uint40(vm.parseJsonUint(json, string.concat(at_, ".positions")));
        m.price = uint96(vm.parseJsonUint(json, string.concat(at_, ".price")));
        m.workMs = uint64(vm.parseJsonUint(json, string.concat(at_, ".workMs")));
        m.numericClass = vm.parseJsonBytes32(json, string.concat(at_, ".numericClass"));
        m.lock = uint96(vm.parseJsonUint(json, string.concat(at_, ".lock")));
        m.until = uint40(vm.parseJsonUint(json, string.concat(at_, ".until")));
        m.seatBy = uint40(vm.parseJsonUint(json, string.concat(at_, ".seatBy")));
        m.secret1 = vm.parseJsonBytes32(json, string.concat(at_, ".secret1"));
        m.secret2 = vm.parseJsonBytes32(json, string.concat(at_, ".secret2"));
        m.nonce = uint64(vm.parseJsonUint(json, string.concat(at_, ".nonce")));
    }

    function readAssign(Vm vm, string memory json, string memory at_) private pure returns (Assign memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.position = uint40(vm.parseJsonUint(json, string.concat(at_, ".position")));
        m.unitId = vm.parseJsonBytes32(json, string.concat(at_, ".unitId"));
    }

    function readReceipt(Vm vm, string memory json, string memory at_) private pure returns (Receipt memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.position = uint40(vm.parseJsonUint(json, string.concat(at_, ".position")));
        m.leaf = vm.parseJsonBytes32(json, string.concat(at_, ".leaf"));
    }

    function readTally(Vm vm, string memory json, string memory at_) private pure returns (Tally memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.number = uint32(vm.parseJsonUint(json, string.concat(at_, ".number")));
        m.previous = vm.parseJsonBytes32(json, string.concat(at_, ".previous"));
        m.start = uint40(vm.parseJsonUint(json, string.concat(at_, ".start")));
        m.count = uint40(vm.parseJsonUint(json, string.concat(at_, ".count")));
        m.root = vm.parseJsonBytes32(json, string.concat(at_, ".root"));
        m.blockNumber = uint64(vm.parseJsonUint(json, string.concat(at_, ".blockNumber")));
        m.blockHash = vm.parseJsonBytes32(json, string.concat(at_, ".blockHash"));
    }

    function readAuditOrder(Vm vm, string memory json, string memory at_) private pure returns (AuditOrder memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.tally = uint32(vm.parseJsonUint(json, string.concat(at_, ".tally")));
        m.position = uint40(vm.parseJsonUint(json, string.concat(at_, ".position")));
        m.unitId = vm.parseJsonBytes32(json, string.concat(at_, ".unitId"));
        m.reason = uint8(vm.parseJsonUint(json, string.concat(at_, ".reason")));
        m.draw = uint8(vm.parseJsonUint(json, string.concat(at_, ".draw")));
        m.attempt = uint16(vm.parseJsonUint(json, string.concat(at_, ".attempt")));
        m.auditor = vm.parseJsonAddress(json, string.concat(at_, ".auditor"));
        m.fee = uint96(vm.parseJsonUint(json, string.concat(at_, ".fee")));
        m.commitBy = uint40(vm.parseJsonUint(json, string.concat(at_, ".commitBy")));
    }

    function readAuditCommit(Vm vm, string memory json, string memory at_) private pure returns (AuditCommit memory m) {
        m.auditOrder = vm.parseJsonBytes32(json, string.concat(at_, ".auditOrder"));
        m.commitment = vm.parseJsonBytes32(json, string.concat(at_, ".commitment"));
    }

    function readOpen(Vm vm, string memory json, string memory at_) private pure returns (Open memory m) {
        m.auditOrder = vm.parseJsonBytes32(json, string.concat(at_, ".auditOrder"));
        m.commit = vm.parseJsonBytes32(json, string.concat(at_, ".commit"));
        m.end = vm.parseJsonBytes32(json, string.concat(at_, ".end"));
        m.salt = vm.parseJsonBytes32(json, string.concat(at_, ".salt"));
        m.aux = vm.parseJsonBytes32(json, string.concat(at_, ".aux"));
        m.recheck = vm.parseJsonBytes32(json, string.concat(at_, ".recheck"));
    }

    function readVerdict(Vm vm, string memory json, string memory at_) private pure returns (Verdict memory m) {
        m.auditOrder = vm.parseJsonBytes32(json, string.concat(at_, ".auditOrder"));
        m.result = uint8(vm.parseJsonUint(json, string.concat(at_, ".result")));
        m.end = vm.parseJsonBytes32(json, string.concat(at_, ".end"));
        m.salt = vm.parseJsonBytes32(json, string.concat(at_, ".salt"));
        m.probe = vm.parseJsonBytes32(json, string.concat(at_, ".probe"));
    }

    function readAccept(Vm vm, string memory json, string memory at_) private pure returns (Accept memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.tally = uint32(vm.parseJsonUint(json, string.concat(at_, ".tally")));
        m.units = uint40(vm.parseJsonUint(json, string.concat(at_, ".units")));
        m.chain = vm.parseJsonBytes32(json, string.concat(at_, ".chain"));
        m.nextSecret = vm.parseJsonBytes32(json, string.concat(at_, ".nextSecret"));
    }

    function readRelease(Vm vm, string memory json, string memory at_) private pure returns (Release memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.units = uint40(vm.parseJsonUint(json, string.concat(at_, ".units")));
    }

    function readCancel(Vm vm, string memory json, string memory at_) private pure returns (Cancel memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.at_ = uint40(vm.parseJsonUint(json, string.concat(at_, ".at")));
    }

    function readClose(Vm vm, string memory json, string memory at_) private pure returns (Close memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.position = uint40(vm.parseJsonUint(json, string.concat(at_, ".position")));
        m.final_ = vm.parseJsonBool(json, string.concat(at_, ".final"));
    }

    function readLeave(Vm vm, string memory json, string memory at_) private pure returns (Leave memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.code = vm.parseJsonString(json, string.concat(at_, ".code"));
    }

    function readResponse(Vm vm, string memory json, string memory at_) private pure returns (Response memory m) {
        m.seat = vm.parseJsonBytes32(json, string.concat(at_, ".seat"));
        m.number = uint64(vm.parseJsonUint(json, string.concat(at_, ".number")));
        m.requestHash = vm.parseJsonBytes32(json, string.concat(at_, ".requestHash"));
        m.running = vm.parseJsonBytes32(json, string.concat(at_, ".running"));
        m.transcript = vm.parseJsonBytes32(json, string.concat(at_, ".transcript"));
        m.tokens = uint40(vm.parseJsonUint(json, string.concat(at_, ".tokens")));
        m.final_ = vm.parseJsonBool(json, string.concat(at_, ".final"));
    }

    function readRelayedBond(Vm vm, string memory json, string memory at_) private pure returns (RelayedBond memory m) {
        m.account = vm.parseJsonAddress(json, string.concat(at_, ".account"));
        m.amount = uint96(vm.parseJsonUint(json, string.concat(at_, ".amount")));
        m.fee = uint96(vm.parseJsonUint(json, string.concat(at_, ".fee")));
        m.nonce = uint64(vm.parseJsonUint(json, string.concat(at_, ".nonce")));
        m.deadline = uint40(vm.parseJsonUint(json, string.concat(at_, ".deadline")));
    }

    function readRelayedWithdraw(Vm vm, string memory json, string memory at_) private pure returns (RelayedWithdraw memory m) {
        m.account = vm.parseJsonAddress(json, string.concat(at_, ".account"));
        m.slots = uint32(vm.parseJsonUint(json, string.concat(at_, ".slots")));
        m.deposit = vm.parseJsonBool(json, string.concat(at_, ".deposit"));
        m.fee = uint96(vm.parseJsonUint(json, string.concat(at_, ".fee")));
        m.nonce = uint64(vm.parseJsonUint(json, string.concat(at_, ".nonce")));
        m.deadline = uint40(vm.parseJsonUint(json, string.concat(at_, ".deadline")));
    }
}
