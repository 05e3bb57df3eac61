// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Lease, Order} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Base, IToken} from "./Base.sol";

/// @notice A token that calls back in the middle of each of its calls, lies about success, or refuses.
contract EvilToken {
    enum Mode {
        Honest,
        Lies, // says false and moves nothing
        Calls // calls what it was told to, once, before it moves anything
    }

    mapping(address => uint256) public balanceOf;
    Mode public mode;
    address private _target;
    bytes private _data;
    bool public called;
    bool public callSucceeded;
    bytes public callResult;

    constructor(address holder) {
        balanceOf[holder] = 1_000_000_000 ether;
    }

    function become(Mode mode_, address target, bytes calldata data) external {
        (mode, _target, _data, called) = (mode_, target, data, false);
    }

    function approve(address, uint256) external pure returns (bool) {
        return true;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        return move(from, to, amount);
    }

    function burn(uint256 amount) external {
        callBack();
        balanceOf[msg.sender] -= amount;
    }

    function move(address from, address to, uint256 amount) private returns (bool) {
        if (mode == Mode.Lies) return false;
        callBack();
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
        return true;
    }

    function callBack() private {
        if (mode != Mode.Calls || called) return;
        called = true;
        (callSucceeded, callResult) = _target.call(_data);
    }
}

/// @notice With a token that is not ours. (The contracts are made for the one that is; still nothing is paid twice.)
contract MaliceTest is Base {
    EvilToken private evil;

    function setUp() public override {
        vm.warp(START);
        vm.roll(1_000);
        evil = new EvilToken(BANK);
        token = IToken(address(evil));
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        registry = IRegistry(create("Registry", abi.encode(token, predicted, SLOT, UNBONDING, CLASS_DELAY)));
        escrow = IJobEscrow(create("JobEscrow", escrowArguments(address(token))));
        fund(PAYER, 1_000_000 ether);
        fund(WORKER, 10_000 ether);
    }

    function callBack(address target, bytes memory data) private {
        evil.become(EvilToken.Mode.Calls, target, data);
    }

    function paidSeat() private returns (Order memory order, Lease memory lease) {
        (order, lease) = seated();
        escrow.settle(settlement(lease, 50));
    }

    function expectRefusedInside(bytes4 selector) private view {
        vm.assertTrue(evil.called() && !evil.callSucceeded(), "the second call went through");
        vm.assertTrue(bytes4(evil.callResult()) == selector, "refused for another reason");
    }

    // ---------------------------------------------------------------- re-entrance

    function test_a_withdrawal_within_a_withdrawal_pays_nothing() public {
        paidSeat();
        uint256 owed = escrow.creditOf(who(WORKER));
        uint256 before = evil.balanceOf(who(WORKER));
        callBack(address(escrow), abi.encodeCall(escrow.withdraw, (who(WORKER))));
        escrow.withdraw(who(WORKER));
        expectRefusedInside(IJobEscrow.NothingToWithdraw.selector);
        vm.assertEq(evil.balanceOf(who(WORKER)), before + owed, "paid once");
    }

    function test_fees_are_not_burned_within_burning_them() public {
        paidSeat();
        uint256 half = escrow.feesToBurn();
        callBack(address(escrow), abi.encodeCall(escrow.burnFees, ()));
        escrow.burnFees();
        expectRefusedInside(IJobEscrow.NothingToBurn.selector);
        vm.assertEq(escrow.creditOf(COURT), half, "the court, once");
    }

    function test_stake_is_not_withdrawn_within_its_withdrawal() public {
        stake(WORKER, 1);
        uint256[] memory slots = new uint256[](1);
        vm.prank(who(WORKER));
        registry.releaseSlots(who(WORKER), slots);
        vm.warp(START + UNBONDING);
        callBack(address(registry), abi.encodeCall(registry.withdraw, (who(WORKER))));
        registry.withdraw(who(WORKER));
        expectRefusedInside(IRegistry.NothingToWithdraw.selector);
        vm.assertEq(evil.balanceOf(address(registry)), 0, "held");
    }

    function test_a_job_that_is_opened_within_its_opening_is_there_once() public {
        Order memory order = anOrder();
        callBack(address(escrow), abi.encodeCall(escrow.open, (order, new IJobEscrow.Seating[](0))));
        vm.prank(who(PAYER));
        escrow.open(order, new IJobEscrow.Seating[](0));
        expectRefusedInside(IJobEscrow.NotPayer.selector); // the token is not the payer
        vm.assertEq(evil.balanceOf(address(escrow)), uint256(order.wages) + order.auditReserve, "funded once");
    }

    function test_a_slash_within_a_slash_is_refused_and_takes_no_more_than_the_lock() public {
        (Order memory order, Lease memory lease) = seated();
        vm.prank(CLAIMS);
        escrow.hold(order, lease);
        bytes memory again = abi.encodeCall(escrow.slash, (lease, lease.lock, order.payer, who(STRANGER), true));
        callBack(address(escrow), again);
        vm.prank(CLAIMS);
        escrow.slash(lease, lease.lock, order.payer, who(STRANGER), true);
        expectRefusedInside(IJobEscrow.NotClaims.selector);
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        (,, uint96 unbonding) = registry.stakeOf(who(WORKER));
        vm.assertEq(unbonding, 0, "unbonding");
        vm.assertEq(evil.balanceOf(address(registry)), SLOT - lease.lock, "held");
    }

    // ---------------------------------------------------------------- lies

    function test_a_token_that_lies_funds_no_job_and_buys_no_slot() public {
        evil.become(EvilToken.Mode.Lies, address(0), "");
        Order memory order = anOrder();
        (bool done,) = tryAs(PAYER, address(escrow), abi.encodeCall(escrow.open, (order, new IJobEscrow.Seating[](0))));
        vm.assertTrue(!done, "opened");
        (done,) = tryAs(WORKER, address(registry), abi.encodeCall(registry.buySlots, (who(WORKER), 1)));
        vm.assertTrue(!done, "bought");
        vm.assertEq(registry.slotCount(), 0, "slots");
    }

    function test_a_token_that_lies_pays_nobody_and_what_is_owed_stays_owed() public {
        paidSeat();
        uint256 owed = escrow.creditOf(who(WORKER));
        evil.become(EvilToken.Mode.Lies, address(0), "");
        (bool done,) = tryAs(STRANGER, address(escrow), abi.encodeCall(escrow.withdraw, (who(WORKER))));
        vm.assertTrue(!done, "paid");
        vm.assertEq(escrow.creditOf(who(WORKER)), owed, "owed");
    }

    function tryAs(uint256 key, address target, bytes memory data) private returns (bool done, bytes memory result) {
        vm.prank(who(key));
        return target.call(data);
    }
}
