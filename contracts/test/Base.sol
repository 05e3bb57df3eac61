// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

import {Accept, AuditOrder, Lease, Messages, Order, PeerBinding, Release, Verdict} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {IRewards} from "../src/interfaces/IRewards.sol";
import {Permit, Signature} from "../src/interfaces/Types.sol";

/// @notice The cheat codes that these tests use, as hardhat's runner offers them.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 timestamp) external;
    function getNonce(address account) external view returns (uint64);
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function roll(uint256 number) external;
    function chainId(uint256 id) external;
    function prank(address caller) external;
    function startPrank(address caller) external;
    function stopPrank() external;
    function getCode(string calldata artifact) external view returns (bytes memory);
    function etch(address where, bytes calldata code) external;
    function assume(bool condition) external pure;
    function expectRevert(bytes calldata data) external;
    function expectRevert(bytes4 selector) external;
    function expectPartialRevert(bytes4 selector) external;
    function expectEmit(address emitter) external;
    function snapshotState() external returns (uint256);
    function revertToState(uint256 id) external returns (bool);
    function readFile(string calldata path) external view returns (string memory);
    function projectRoot() external view returns (string memory);
    function toString(uint256 value) external pure returns (string memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonBool(string calldata json, string calldata key) external pure returns (bool);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function assertEq(uint256 left, uint256 right, string calldata what) external pure;
    function assertEq(address left, address right, string calldata what) external pure;
    function assertEq(bytes32 left, bytes32 right, string calldata what) external pure;
    function assertLe(uint256 left, uint256 right, string calldata what) external pure;
    function assertTrue(bool condition, string calldata what) external pure;
}

interface IToken is IERC20, IERC20Permit {
    function CAP() external view returns (uint256);
    function decimals() external view returns (uint8);
    function burn(uint256 amount) external;
}

/// @notice The contracts with the protocol's parameters, keys for everybody, and every message that they may sign.
contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint96 internal constant SLOT = 1_000 ether;
    uint40 internal constant UNBONDING = 14 days;
    uint40 internal constant LOCK_TAIL = 1 days;
    uint40 internal constant CLASS_DELAY = 1 days;
    uint40 internal constant WINDOW_MIN = 1 hours;
    uint40 internal constant WINDOW_MAX = 2 days;
    uint40 internal constant LEASE_MAX = 48 hours;
    uint16 internal constant FEE_BP = 200;
    uint40 internal constant PERIOD = 7 days;
    uint256 internal constant EMISSION = 1_000 ether;
    uint256 internal constant START = 1_750_000_000;

    uint96 internal constant PRICE = 1 ether / 100;
    uint40 internal constant UNITS = 100;
    uint96 internal constant CAP = PRICE * UNITS;

    uint256 internal constant PAYER = 101;
    uint256 internal constant SIGNER = 102;
    uint256 internal constant WORKER = 201;
    uint256 internal constant WORKER_2 = 202;
    uint256 internal constant AUDITOR = 301;
    uint256 internal constant AUDITOR_2 = 302;
    uint256 internal constant STRANGER = 401;
    address internal constant BANK = address(0xBA17);
    /// @dev The escrow trusts one address each; here they are the tests themselves. (Claims.t.sol has the real ones.)
    address internal constant CLAIMS = address(0xC1A1);
    address internal constant ACCUSATIONS = address(0xACC5);
    address internal constant COURT = address(0xC0C0);

    IToken internal token;
    IRegistry internal registry;
    IJobEscrow internal escrow;
    IRewards internal rewards;
    Signature internal none; // a signature left out

    function setUp() public virtual {
        vm.warp(START);
        vm.roll(1_000);
        deploy();
        fund(PAYER, 1_000_000 ether);
        fund(WORKER, 10_000 ether);
        fund(WORKER_2, 10_000 ether);
    }

    /// @dev Registry is made before the escrow that it names: its address follows from this contract's nonce.
    function deploy() internal {
        token = IToken(create("Token", abi.encode(BANK, 1_000_000_000 ether)));
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        registry = IRegistry(create("Registry", abi.encode(token, predicted, SLOT, UNBONDING, CLASS_DELAY)));
        escrow = IJobEscrow(create("JobEscrow", escrowArguments(address(token))));
        vm.assertEq(address(escrow), predicted, "the escrow is not where Registry expects it");
        rewards = IRewards(create("Rewards", abi.encode(token, registry, escrow, EMISSION)));
    }

    function escrowArguments(address token_) internal view returns (bytes memory) {
        bytes memory addresses = abi.encode(token_, registry, CLAIMS, ACCUSATIONS, COURT);
        return bytes.concat(addresses, abi.encode(FEE_BP, LEASE_MAX, LOCK_TAIL, WINDOW_MIN, WINDOW_MAX, PERIOD));
    }

    /// @dev The bytecode as it is deployed anywhere, not one compiled again into every test. Refusals pass through.
    function create(string memory name, bytes memory arguments) internal returns (address made) {
        bytes memory code = bytes.concat(vm.getCode(string.concat("src/", name, ".sol:", name)), arguments);
        assembly ("memory-safe") {
            made := create(0, add(code, 32), mload(code))
        }
    }

    /// @notice Its constructor refuses these arguments, for this reason.
    /// @dev `vm.expectRevert` would be content with a `create` in assembly that succeeds.
    function refused(string memory name, bytes memory arguments, bytes memory reason) internal {
        address made = create(name, arguments);
        bytes memory said;
        assembly ("memory-safe") {
            said := mload(0x40)
            mstore(said, returndatasize())
            returndatacopy(add(said, 32), 0, returndatasize())
            mstore(0x40, and(add(add(said, returndatasize()), 63), not(31)))
        }
        vm.assertEq(made, address(0), "a constructor took arguments that it should refuse");
        vm.assertEq(keccak256(said), keccak256(reason), "a constructor refused for another reason");
    }

    // ---------------------------------------------------------------- people

    function who(uint256 key) internal pure returns (address) {
        return vm.addr(key);
    }

    /// @notice Tokens, and both contracts approved for all of them.
    function fund(uint256 key, uint256 amount) internal {
        vm.prank(BANK);
        token.transfer(who(key), amount);
        vm.startPrank(who(key));
        token.approve(address(registry), type(uint256).max);
        token.approve(address(escrow), type(uint256).max);
        vm.stopPrank();
    }

    function stake(uint256 key, uint32 slots) internal returns (uint256 first) {
        vm.prank(who(key));
        return registry.buySlots(who(key), slots);
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (Signature memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return Signature(r, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    function digestOf(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), structHash));
    }

    function registryDigestOf(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", registry.domainSeparator(), structHash));
    }

    function permitOf(uint256 key, address spender, uint256 value) internal view returns (Permit memory) {
        bytes32 typeHash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        uint256 deadline = block.timestamp + 1 hours;
        bytes32 body = keccak256(abi.encode(typeHash, who(key), spender, value, token.nonces(who(key)), deadline));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), body));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return Permit(value, deadline, v, r, s);
    }

    // ---------------------------------------------------------------- messages

    /// @notice Wages for three seats of `CAP`, a reserve for a hundred audits; the signer may seat two of them alone.
    function anOrder() internal view returns (Order memory order) {
        order.payer = who(PAYER);
        order.signer = who(SIGNER);
        order.template = keccak256("job");
        order.priceMax = PRICE;
        order.wages = 3 * CAP;
        order.auditReserve = CAP;
        order.lockPerSeat = 50 ether;
        order.auditRateBp = 400;
        order.tallyUnits = 50;
        order.claimWindow = 1 days;
        order.evidenceWindow = 2 days;
        order.signerSeatMax = 2 * CAP;
        order.deadline = uint40(block.timestamp + 3 days);
        order.salt = keccak256("salt");
    }

    function aLease(Order memory order, uint256 worker, uint64 number) internal view returns (Lease memory lease) {
        lease.job = escrow.jobIdOf(order);
        lease.worker = who(worker);
        lease.positions = UNITS;
        lease.price = PRICE;
        lease.workMs = 1000;
        lease.lock = 100 ether;
        lease.until = uint40(block.timestamp + 1 days);
        lease.seatBy = uint40(block.timestamp + 1 hours);
        lease.nonce = number;
    }

    function anAccept(Lease memory lease, uint40 units) internal view returns (Accept memory) {
        return Accept(escrow.seatIdOf(lease), 1, units, keccak256("chain"), keccak256("secret"));
    }

    function anAuditOrder(Lease memory lease, uint40 position, uint8 draw, uint16 attempt, uint256 auditor)
        internal
        view
        returns (AuditOrder memory order)
    {
        order.seat = escrow.seatIdOf(lease);
        order.tally = 1;
        order.position = position;
        order.unitId = keccak256("unit");
        order.draw = draw;
        order.attempt = attempt;
        order.auditor = who(auditor);
        order.fee = uint96(uint256(lease.price) * 11 / 10);
        order.commitBy = uint40(block.timestamp + 1 minutes);
    }

    // ---------------------------------------------------------------- items, signed by whom they should be

    function seating(Lease memory lease, uint256 worker) internal view returns (IJobEscrow.Seating[] memory items) {
        bytes32 id = escrow.seatIdOf(lease);
        items = new IJobEscrow.Seating[](1);
        items[0] = IJobEscrow.Seating(lease, sign(worker, id), sign(SIGNER, id));
    }

    function settlement(Lease memory lease, uint40 units) internal view returns (IJobEscrow.Settlement[] memory items) {
        Accept memory accept = anAccept(lease, units);
        items = new IJobEscrow.Settlement[](1);
        items[0] = IJobEscrow.Settlement(lease, accept, sign(SIGNER, digestOf(Messages.hash(accept))));
    }

    function closing(Lease memory lease, uint40 units, uint256 worker)
        internal
        view
        returns (IJobEscrow.Closing[] memory items)
    {
        Release memory release = Release(escrow.seatIdOf(lease), units);
        items = new IJobEscrow.Closing[](1);
        items[0] = IJobEscrow.Closing(lease, release, sign(worker, digestOf(Messages.hash(release))));
    }

    function audit(AuditOrder memory order, uint8 result, uint256 auditor)
        internal
        view
        returns (IJobEscrow.Audit memory)
    {
        bytes32 orderId = digestOf(Messages.hash(order));
        Verdict memory verdict = Verdict(orderId, result, keccak256("end"), keccak256("salt"), keccak256("probe"));
        return IJobEscrow.Audit(
            order, sign(SIGNER, orderId), verdict, sign(auditor, digestOf(Messages.hash(verdict)))
        );
    }

    function list(Lease memory lease) internal pure returns (Lease[] memory leases) {
        leases = new Lease[](1);
        leases[0] = lease;
    }

    function list(IJobEscrow.Audit memory item) internal pure returns (IJobEscrow.Audit[] memory items) {
        items = new IJobEscrow.Audit[](1);
        items[0] = item;
    }

    // ---------------------------------------------------------------- usual beginnings

    /// @notice A funded job without seats.
    function opened() internal returns (Order memory order) {
        order = anOrder();
        vm.prank(who(PAYER));
        escrow.open(order, new IJobEscrow.Seating[](0));
    }

    /// @notice A funded job with one open seat of a staked worker.
    function seated() internal returns (Order memory order, Lease memory lease) {
        stake(WORKER, 1);
        order = anOrder();
        lease = aLease(order, WORKER, 1);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.prank(who(PAYER));
        escrow.open(order, items);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "the seat is not open");
    }

    function stateOf(Lease memory lease) internal view returns (IJobEscrow.SeatState) {
        return escrow.seatOf(escrow.seatIdOf(lease)).state;
    }

    function paidUnits(Lease memory lease) internal view returns (uint40) {
        return escrow.seatOf(escrow.seatIdOf(lease)).paidUnits;
    }

    /// @notice The next call leaves this item out, for this reason.
    function expectRefused(bytes32 id, IJobEscrow.Refusal why) internal {
        vm.expectEmit(address(escrow));
        emit IJobEscrow.Refused(id, why);
    }

    function expectRefused(Lease memory lease, IJobEscrow.Refusal why) internal {
        expectRefused(escrow.seatIdOf(lease), why);
    }

    /// @notice Half of the fee on all that a seat was paid: burned, and as much for the court.
    function halfOf(uint256 amount) internal pure returns (uint256) {
        return amount * FEE_BP / 20_000;
    }

    function netOf(uint256 amount) internal pure returns (uint256) {
        return amount - 2 * halfOf(amount);
    }
}
