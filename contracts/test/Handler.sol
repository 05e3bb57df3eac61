// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Accept, AuditOrder, Lease, Messages, Order, Release} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Base, IToken} from "./Base.sol";

/// @notice Everybody at once: payers, their signer, workers, auditors, strangers, in any order and at any time. Workers are
/// honest (a Release names all that was accepted); everybody else may forge, repeat and come early or late.
/// @dev An act may fail only for a reason that it names; anything else fails the test (`failOnRevert`).
contract Handler is Base {
    struct Held {
        Lease lease;
        uint256 job; // index
        uint256 worker; // key
        uint40 accepted; // the highest Accept that the signer signed
    }

    struct Books {
        uint256 funded;
        uint256 audited; // credited to auditors
        uint256 refunded; // credited to the payer
    }

    uint256 public constant JOBS_MAX = 5;
    uint256 public constant SEATS_MAX = 25; // the checks read each of them after every act

    uint256[3] public workers = [WORKER, WORKER_2, uint256(203)];
    uint256[2] public payers = [PAYER, uint256(103)];
    uint256[2] public auditors = [AUDITOR, AUDITOR_2];
    Order[] private _orders;
    uint256[] private _payerOf;
    Books[] private _books;
    Held[] private _seats;
    uint256[] private _slotOwner; // worker's key by slot

    uint256 public acts;
    uint256 public failed; // acts that were refused as a whole

    constructor(IToken token_, IRegistry registry_, IJobEscrow escrow_) {
        token = token_;
        registry = registry_;
        escrow = escrow_;
    }

    // ---------------------------------------------------------------- what the checks read

    function jobs() external view returns (uint256) {
        return _orders.length;
    }

    function orderOf(uint256 job) external view returns (Order memory) {
        return _orders[job];
    }

    function booksOf(uint256 job) external view returns (Books memory) {
        return _books[job];
    }

    function seats() external view returns (uint256) {
        return _seats.length;
    }

    function heldOf(uint256 i) external view returns (Held memory) {
        return _seats[i];
    }

    function accounts() public view returns (address[] memory all) {
        all = new address[](8);
        for (uint256 i = 0; i < 3; ++i) all[i] = who(workers[i]);
        for (uint256 i = 0; i < 2; ++i) all[3 + i] = who(payers[i]);
        for (uint256 i = 0; i < 2; ++i) all[5 + i] = who(auditors[i]);
        all[7] = who(SIGNER);
    }

    /// @notice Settle the highest Accept of a seat now, say what the worker got, and leave no trace.
    function wouldPay(uint256 i) external returns (uint256 credit) {
        try this.settleAndRevert(i) {
            revert("it always reverts");
        } catch (bytes memory outcome) {
            return abi.decode(outcome, (uint256));
        }
    }

    function settleAndRevert(uint256 i) external {
        Held memory seat = _seats[i];
        uint256 before = escrow.creditOf(seat.lease.worker);
        escrow.settle(settlement(seat.lease, seat.accepted));
        uint256 credit = escrow.creditOf(seat.lease.worker) - before;
        assembly ("memory-safe") {
            mstore(0, credit)
            revert(0, 32)
        }
    }

    // ---------------------------------------------------------------- acts of payers and signers

    function openJob(uint256 a) external counted {
        if (_orders.length == JOBS_MAX) return;
        uint256 payer = payers[a % 2];
        Order memory order = anOrder();
        order.payer = who(payer);
        order.wages = uint96((a / 2 % 4) * CAP + a % 1000);
        order.auditReserve = uint96(CAP * (a / 8 % 3) / 4);
        order.signerSeatMax = uint96((a / 32 % 3) * CAP);
        order.salt = bytes32(_orders.length);
        order.claimWindow = a % 5 == 0 ? WINDOW_MIN : 1 days;
        vm.prank(who(payer));
        escrow.open(order, new IJobEscrow.Seating[](0));
        _orders.push(order);
        _payerOf.push(payer);
        _books.push(Books(uint256(order.wages) + order.auditReserve, 0, 0));
    }

    function takeSeat(uint256 a) external counted {
        if (_orders.length == 0 || _seats.length == SEATS_MAX) return;
        uint256 job = a % _orders.length;
        uint256 worker = workers[a / 8 % 3];
        Lease memory lease = aLease(_orders[job], worker, uint64(_seats.length));
        lease.positions = uint40(a / 64 % UNITS) + 1;
        lease.price = uint96(PRICE - a % 7);
        lease.lock = uint96((a / 128 % 8 + 1) * 50 ether);
        lease.until = uint40(block.timestamp + 1 + a / 1024 % 12 hours); // short: most of them end within a run
        IJobEscrow.Seating[] memory items = seating(lease, worker);
        address by = a / 4 % 3 == 0 ? who(STRANGER) : _orders[job].payer;
        vm.prank(by);
        if (escrow.seat(_orders[job], items) == 1) _seats.push(Held(lease, job, worker, 0));
    }

    function signAccept(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held storage seat = _seats[a % _seats.length];
        if (stateOf(seat.lease) != IJobEscrow.SeatState.Open) return;
        uint256 more = seat.accepted + a / 64 % 30;
        seat.accepted = more > seat.lease.positions ? seat.lease.positions : uint40(more);
    }

    function refund(uint256 a) external counted {
        if (_orders.length == 0) return;
        uint256 job = a % _orders.length;
        address payer = _orders[job].payer;
        uint256 before = escrow.creditOf(payer);
        vm.prank([payer, who(SIGNER), who(STRANGER)][a / 8 % 3]);
        try escrow.refund(_orders[job]) {
            _books[job].refunded += escrow.creditOf(payer) - before;
        } catch (bytes memory reason) {
            refusedAs(reason, IJobEscrow.NotRefundable.selector);
        }
    }

    function finish(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held memory seat = _seats[a % _seats.length];
        IJobEscrow.SeatEnd[] memory ends = new IJobEscrow.SeatEnd[](1);
        ends[0].lease = seat.lease;
        IJobEscrow.Settlement memory pay = settlement(seat.lease, seat.accepted)[0];
        ends[0].accept = pay.accept;
        ends[0].acceptSignature = pay.signature;
        if (a / 64 % 2 == 0) {
            IJobEscrow.Closing memory end = closing(seat.lease, seat.accepted, seat.worker)[0];
            ends[0].release = end.release;
            ends[0].releaseSignature = end.signature;
        }
        ends[0].audits = list(anAudit(seat.lease, a / 128));
        address payer = _orders[seat.job].payer;
        uint256 payerBefore = escrow.creditOf(payer);
        uint256 auditorsBefore = auditorsCredit();
        vm.prank([payer, who(SIGNER), who(STRANGER)][a / 8 % 3]);
        escrow.finish(_orders[seat.job], ends);
        _books[seat.job].refunded += escrow.creditOf(payer) - payerBefore;
        _books[seat.job].audited += auditorsCredit() - auditorsBefore;
    }

    // ---------------------------------------------------------------- acts of workers and auditors

    function settleAnyAccept(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held memory seat = _seats[a % _seats.length];
        escrow.settle(settlement(seat.lease, uint40(a / 64 % (uint256(seat.accepted) + 1))));
    }

    function settleManyAtOnce(uint256 a) external counted {
        if (_seats.length == 0) return;
        IJobEscrow.Settlement[] memory items = new IJobEscrow.Settlement[](3);
        for (uint256 i = 0; i < 3; ++i) {
            Held memory seat = _seats[(a >> (8 * i)) % _seats.length];
            items[i] = settlement(seat.lease, seat.accepted)[0];
        }
        escrow.settle(items);
    }

    function releaseSeat(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held memory seat = _seats[a % _seats.length];
        escrow.close(closing(seat.lease, seat.accepted, seat.worker));
    }

    function unlockSeat(uint256 a) external counted {
        if (_seats.length != 0) escrow.unlock(list(_seats[a % _seats.length].lease));
    }

    function payAudit(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held memory seat = _seats[a % _seats.length];
        uint256 before = auditorsCredit();
        escrow.payAudits(seat.lease, list(anAudit(seat.lease, a / 64)));
        _books[seat.job].audited += auditorsCredit() - before;
    }

    // ---------------------------------------------------------------- acts of anybody

    function expireSeat(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held memory seat = _seats[a % _seats.length];
        escrow.expire(_orders[seat.job], list(seat.lease));
    }

    function forge(uint256 a) external counted {
        if (_seats.length == 0) return;
        Held memory seat = _seats[a % _seats.length];
        IJobEscrow.Settlement[] memory pay = settlement(seat.lease, seat.accepted);
        pay[0].accept.units += 1;
        IJobEscrow.Closing[] memory end = closing(seat.lease, 0, STRANGER);
        IJobEscrow.Audit memory item = anAudit(seat.lease, a / 64);
        item.orderSignature = sign(STRANGER, item.verdict.auditOrder);
        vm.startPrank(who(STRANGER));
        uint256 done = escrow.settle(pay) + escrow.close(end) + escrow.payAudits(seat.lease, list(item));
        vm.stopPrank();
        vm.assertEq(done, 0, "a forged item took effect");
    }

    function withdraw(uint256 a) external counted {
        address account = accounts()[a % 8];
        try escrow.withdraw(account) {}
        catch (bytes memory reason) {
            refusedAs(reason, IJobEscrow.NothingToWithdraw.selector);
        }
    }

    function burnFees(uint256) external counted {
        try escrow.burnFees() {}
        catch (bytes memory reason) {
            refusedAs(reason, IJobEscrow.NothingToBurn.selector);
        }
    }

    function wait(uint256 a) external counted {
        vm.warp(block.timestamp + a % 18 hours);
        vm.roll(block.number + 1);
    }

    // ---------------------------------------------------------------- stake

    function buySlot(uint256 a) external counted {
        uint256 worker = workers[a % 3];
        if (token.balanceOf(who(worker)) < SLOT) return;
        stake(worker, 1);
        _slotOwner.push(worker);
    }

    function releaseSlot(uint256 a) external counted {
        if (_slotOwner.length == 0) return;
        uint256[] memory slots = new uint256[](1);
        slots[0] = a % _slotOwner.length;
        address worker = who(_slotOwner[slots[0]]);
        vm.prank(registry.ownerOf(worker));
        try registry.releaseSlots(worker, slots) {}
        catch (bytes memory reason) {
            refusedAs(reason, IRegistry.SlotAlreadyReleased.selector);
        }
    }

    function withdrawStake(uint256 a) external counted {
        try registry.withdraw(who(workers[a % 3])) {}
        catch (bytes memory reason) {
            refusedAs(reason, IRegistry.NothingToWithdraw.selector);
        }
    }

    function changeOwner(uint256 a) external counted {
        address worker = who(workers[a % 3]);
        address next = a / 4 % 2 == 0 ? worker : who(STRANGER);
        vm.prank(registry.ownerOf(worker));
        registry.proposeOwner(worker, next);
        vm.prank(next);
        registry.acceptOwner(worker);
    }

    // ---------------------------------------------------------------- internals

    modifier counted() {
        ++acts;
        _;
    }

    function refusedAs(bytes memory reason, bytes4 expected) private {
        ++failed;
        vm.assertTrue(bytes4(reason) == expected, "refused for an unexpected reason");
    }

    function auditorsCredit() private view returns (uint256) {
        return escrow.creditOf(who(AUDITOR)) + escrow.creditOf(who(AUDITOR_2));
    }

    function anAudit(Lease memory lease, uint256 a) private view returns (IJobEscrow.Audit memory) {
        uint256 auditor = auditors[a % 2];
        AuditOrder memory order =
            anAuditOrder(lease, uint40(a / 2 % 70), uint8(a / 256 % 4), uint16(a / 1024 % 2), auditor);
        return audit(order, uint8(a / 2048 % 4), auditor);
    }
}
