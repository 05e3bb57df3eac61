// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Lease} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {JobEscrow} from "../src/JobEscrow.sol";
import {Draws} from "../src/libraries/Draws.sol";

interface Vm {
    function assume(bool condition) external pure;
    function store(address where, bytes32 slot, bytes32 value) external;
}

/// @notice A token and a registry that let everything pass and remember what was burned: no proof is about them.
contract Obliging {
    uint256 public burned;

    function burn(uint256 amount) external {
        burned += amount;
    }

    function slash(address, uint96) external {}

    function relieve(address, uint96, bool) external pure returns (bool) {
        return false;
    }
}

/// @title Six properties of the money, for every value of what is named in each: halmos executes the escrow's own bytecode with
/// symbols in place of numbers (scripts/study halmos). The seat before the call is any that the packing allows.
/// @dev This contract stands where Claims stands, which may pay, take and slash without a signature; `_pay`, which it ends in,
/// is what `settle` ends in as well.
contract Proofs {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    address private constant COURT = address(0xC0);
    address private constant WORKER = address(0xA0);
    address private constant PAYER = address(0xB0);
    address private constant PROVER = address(0xD0);
    // slots of JobEscrow: scripts/support/studies/halmos.py compares them with the compiler's layout
    uint256 private constant SEATS = 1;
    uint256 private constant CREDITS = 2;
    uint256 private constant CLAIMED = 5;
    uint16 private constant FEE_BP = 200;

    Obliging private world;
    JobEscrow private escrow;

    function setUp() public {
        world = new Obliging();
        escrow = new JobEscrow(
            address(world), address(world), address(this), address(0xAC), COURT, FEE_BP, 1, 0, 0, 0, 1
        );
    }

    // ---------------------------------------------------------------- the six

    /// @notice Caps: no call pays more than the units that were not paid yet, at the seat's price, nor beyond its units.
    function check_a_payment_stays_within_the_cap(uint96 price, uint40 units, uint40 paid, uint40 asked) public {
        Lease memory lease = _seat(1, price, units, paid, 0);

        uint96 amount = escrow.payClaim(lease, 1, asked, 0);

        uint40 after_ = escrow.seatOf(escrow.seatIdOf(lease)).paidUnits;
        assert(after_ <= units);
        assert(amount == uint256(after_ - paid) * price);
        assert(escrow.creditOf(WORKER) + 2 * escrow.feesToBurn() == amount);
    }

    /// @notice Splits: what is slashed is at most what was asked and what is left, and its parts are all of it.
    function check_a_slash_is_divided_without_rest(uint96 lock, uint96 asked, bool toCourt) public {
        Lease memory lease = _seat(1, 1, 1, 0, 0);
        lease.lock = lock;
        _put(lease, 1, 0, 0);

        uint96 slashed = escrow.slash(lease, asked, PAYER, PROVER, toCourt);

        assert(slashed <= asked && slashed <= lock);
        uint256 parts = escrow.creditOf(PAYER) + escrow.creditOf(PROVER) + escrow.creditOf(COURT);
        assert(parts + world.burned() == slashed);
        assert(toCourt || escrow.creditOf(COURT) == 0);
    }

    /// @notice Rounding: paid in two parts or at once, the fee is the same to the wei.
    function check_the_fee_is_the_same_in_parts(uint96 price, uint40 first, uint40 units) public {
        vm.assume(first < units);
        Lease memory parts = _seat(1, price, units, 0, 0);
        uint96 one = escrow.payClaim(parts, 1, first, 0);
        vm.assume(one != 0); // else it did not cover its fee and was left out
        uint96 two = escrow.payClaim(parts, 2, units, 0);
        vm.assume(two != 0);
        uint256 fees = escrow.feesToBurn();

        Lease memory whole = _seat(2, price, units, 0, 0);
        escrow.payClaim(whole, 1, units, 0);

        assert(escrow.feesToBurn() - fees == fees);
    }

    /// @notice Distinct samples: the units that a seed draws are distinct and within the tally.
    function check_drawn_units_are_distinct(bytes32 seed, uint8 count) public pure {
        vm.assume(count >= 3);
        uint256[] memory drawn = Draws.units(seed, count, 3);
        assert(drawn[0] < count && drawn[1] < count && drawn[2] < count);
        assert(drawn[0] != drawn[1] && drawn[0] != drawn[2] && drawn[1] != drawn[2]);
    }

    /// @notice Monotone payment: neither what a seat has paid nor what its worker has been credited ever falls.
    function check_payment_never_falls(uint96 price, uint40 units, uint40 paid, uint40 asked, uint96 credit) public {
        Lease memory lease = _seat(1, price, units, paid, 0);
        vm.store(address(escrow), keccak256(abi.encode(WORKER, CREDITS)), bytes32(uint256(credit)));

        uint96 amount = escrow.payClaim(lease, 1, asked, 0);
        vm.assume(uint256(credit) + amount <= type(uint96).max); // no more tokens than that exist

        assert(escrow.seatOf(escrow.seatIdOf(lease)).paidUnits >= paid);
        assert(escrow.creditOf(WORKER) >= credit);
    }

    /// @notice No double credit: the same or fewer units once more change nothing at all.
    function check_what_was_paid_is_not_paid_again(uint96 price, uint40 units, uint40 one, uint40 again) public {
        Lease memory lease = _seat(1, price, units, 0, 0);
        bytes32 id = escrow.seatIdOf(lease);
        vm.assume(escrow.payClaim(lease, 1, one, 0) != 0);
        IJobEscrow.Seat memory before = escrow.seatOf(id);
        uint256 credit = escrow.creditOf(WORKER);
        uint256 fees = escrow.feesToBurn();
        vm.assume(again <= one);

        assert(escrow.payClaim(lease, 2, again, 0) == 0);

        assert(keccak256(abi.encode(escrow.seatOf(id))) == keccak256(abi.encode(before)));
        assert(escrow.creditOf(WORKER) == credit && escrow.feesToBurn() == fees);
    }

    // ---------------------------------------------------------------- the state before

    /// @dev An open seat with a live claim, so that Claims may act on it and paying all of it does not close it (which is no
    /// matter of pay); `held` is its bond. Its cap was in wages once.
    function _seat(uint64 nonce, uint96 price, uint40 units, uint40 paid, uint96 held)
        private
        returns (Lease memory lease)
    {
        vm.assume(paid <= units);
        vm.assume(uint256(units) * price <= type(uint96).max);
        lease.worker = WORKER;
        lease.positions = units;
        lease.price = price;
        lease.nonce = nonce;
        _put(lease, units, paid, held);
    }

    function _put(Lease memory lease, uint40 units, uint40 paid, uint96 held) private {
        uint256 word = uint256(held) | (uint256(units) << 96) | (uint256(paid) << 136);
        word |= (uint256(IJobEscrow.SeatState.Open) << 216) | (uint256(1) << 224);
        bytes32 id = escrow.seatIdOf(lease);
        vm.store(address(escrow), keccak256(abi.encode(id, SEATS)), bytes32(word));
        vm.store(address(escrow), keccak256(abi.encode(id, CLAIMED)), bytes32(uint256(1)));
    }
}
