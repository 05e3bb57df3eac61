"""The system call filter, run in an interpreter of its own: every number, both architectures, both kinds of unit."""

from __future__ import annotations

import errno
import hashlib
import struct

import pytest

from tallymesh_learning.runtime import seccomp

ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
EPERM = 0x0005_0000 | errno.EPERM
ENOSYS = 0x0005_0000 | errno.ENOSYS
ENOTTY = 0x0005_0000 | errno.ENOTTY
NAMES = {  # as man 2 and the kernel's tables number them: x86_64, aarch64
    "read": (0, 63), "mmap": (9, 222), "exit_group": (231, 94), "openat": (257, 56), "futex": (202, 98),
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241), "io_uring_setup": (425, 425),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "keyctl": (250, 219),
    "userfaultfd": (323, 282), "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "accept4": (288, 242),
    "process_vm_readv": (310, 270), "kexec_load": (246, 104), "init_module": (175, 105), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442), "pidfd_getfd": (438, 438),
    "setuid": (105, 146), "chroot": (161, 51), "sync": (162, 81), "mknodat": (259, 33), "execveat": (322, 281),
    "sched_setaffinity": (203, 122), "seccomp": (317, 277), "sendmmsg": (307, 269), "vmsplice": (278, 75),
    "open_by_handle_at": (304, 265), "syslog": (103, 116), "reboot": (169, 142),
    "clone": (56, 220), "clone3": (435, 435), "execve": (59, 221), "socketpair": (53, 199), "sendto": (44, 206),
    "setsockopt": (54, 208), "ioctl": (16, 29), "prctl": (157, 167), "fcntl": (72, 25), "pipe2": (293, 59),
    "personality": (135, 92), "setrlimit": (160, 164), "prlimit64": (302, 261),
}  # fmt: skip
PROGRAMS = {
    (name, forks, card): seccomp.program(name, forks=forks, card=card)
    for name in ARCHITECTURES
    for forks in (True, False)
    for card in (True, False)
}
ALLOWED = ("read", "mmap", "exit_group", "openat", "futex")
RULED = list(NAMES)[list(NAMES).index("clone") :]
REFUSED = [name for name in NAMES if name not in ALLOWED and name not in RULED]


def decide(
    machine: str, number: int, *arguments: int, forks: bool = True, card: bool = False, architecture: int = 0
) -> int:
    """What the kernel would do with the call. A step beyond the program or without end would fail here."""
    steps = PROGRAMS[machine, forks, card]
    values = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *values)
    place = register = 0
    for _ in range(len(steps)):
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == 0x20:
            (register,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return value
        elif code == 0x54:
            register &= value
        elif code == 0x05:
            place += value
        else:
            true = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
            place += if_true if true else if_false
    raise AssertionError("the program does not end")


def call(machine: str, name: str, *arguments: int, forks: bool = True, card: bool = False) -> int:
    return decide(machine, NAMES[name][list(ARCHITECTURES).index(machine)], *arguments, forks=forks, card=card)


@pytest.fixture(params=list(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_number_is_decided_and_most_are_refused(machine: str) -> None:
    decisions = [decide(machine, number) for number in range(600)]
    assert set(decisions) <= {seccomp.ALLOW, EPERM, ENOSYS, ENOTTY}
    assert decisions[seccomp.NEWEST + 1 :] == [ENOSYS] * (600 - seccomp.NEWEST - 1)
    assert sum(decision == seccomp.ALLOW for decision in decisions) < 260


def test_another_abi_is_killed_and_x32_is_unknown(machine: str) -> None:
    assert decide(machine, 0, architecture=0x4000_0003) == seccomp.KILL  # i386 through int 0x80
    other = next(value for name, value in ARCHITECTURES.items() if name != machine)
    assert decide(machine, 0, architecture=other) == seccomp.KILL
    assert decide(machine, 0x4000_0000) == ENOSYS


@pytest.mark.parametrize("name", ALLOWED)
def test_what_programs_need_is_allowed(machine: str, name: str) -> None:
    assert call(machine, name) == seccomp.ALLOW


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_reach_out_is_refused(machine: str, name: str) -> None:
    assert call(machine, name) == EPERM


@pytest.mark.parametrize("bit", [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000])
def test_clone_makes_no_namespace(machine: str, bit: int) -> None:
    assert call(machine, "clone", bit | 17) == EPERM
    assert call(machine, "clone", 17) == seccomp.ALLOW
    assert call(machine, "clone3") == ENOSYS


def test_without_forks_there_are_threads_only(machine: str) -> None:
    thread = 0x3D_0F00
    assert call(machine, "clone", thread, forks=False) == seccomp.ALLOW
    assert call(machine, "clone", 17, forks=False) == EPERM
    assert call(machine, "clone", thread | 0x1000_0000, forks=False) == EPERM
    assert call(machine, "execve", forks=False) == EPERM
    assert call(machine, "execve") == seccomp.ALLOW
    if machine == "x86_64":
        for number in (57, 58):  # fork, vfork
            assert decide(machine, number) == seccomp.ALLOW
            assert decide(machine, number, forks=False) == EPERM


@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("socketpair", (1, 1, 0), seccomp.ALLOW),
        ("socketpair", (2, 1, 0), EPERM),
        ("sendto", (3, 0, 1, 0, 0, 0), seccomp.ALLOW),
        ("sendto", (3, 0, 1, 0, 0x7FFF_0000, 16), EPERM),
        ("sendto", (3, 0, 1, 0, 0x7FFF_0000_0000, 16), EPERM),  # an address whose lower half is zero
        ("setsockopt", (3, 1, 7), seccomp.ALLOW),
        ("setsockopt", (3, 1, 26), EPERM),  # SO_ATTACH_FILTER
        ("ioctl", (0, 0x5401), seccomp.ALLOW),
        ("ioctl", (0, 0x5412), ENOTTY),  # TIOCSTI
        ("prctl", (15,), seccomp.ALLOW),
        ("prctl", (36,), EPERM),  # PR_SET_CHILD_SUBREAPER
        ("prctl", (0x5961_6D61,), EPERM),  # PR_SET_PTRACER
        ("fcntl", (3, 3), seccomp.ALLOW),
        ("fcntl", (3, 1031, 1 << 20), EPERM),
        ("pipe2", (0, 0o2000000), seccomp.ALLOW),
        ("pipe2", (0, 0x80), EPERM),
        ("personality", (0xFFFF_FFFF,), seccomp.ALLOW),
        ("personality", (0x40000,), EPERM),  # ADDR_NO_RANDOMIZE
        ("setrlimit", (7,), seccomp.ALLOW),
        ("setrlimit", (4,), EPERM),
        ("prlimit64", (0, 4, 0, 0x7FFF_0000), seccomp.ALLOW),
        ("prlimit64", (0, 7, 0x7FFF_0000, 0), seccomp.ALLOW),
        ("prlimit64", (0, 4, 0x7FFF_0000, 0), EPERM),
        ("prlimit64", (0, 4, 0x7FFF_0000_0000, 0), EPERM),
    ],
)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], decision: int) -> None:
    assert call(machine, name, *arguments) == decision


def test_units_without_a_card_have_the_filter_that_they_always_had() -> None:
    """Byte for byte: whatever cards need is in a filter of its own."""
    found = {
        (name, forks): hashlib.sha256(b"".join(struct.pack("HBBI", *step) for step in PROGRAMS[name, forks, False]))
        for name in ARCHITECTURES
        for forks in (True, False)
    }
    assert {key: digest.hexdigest()[:16] for key, digest in found.items()} == {
        ("x86_64", True): "b582d75ba62a1309",
        ("x86_64", False): "876bb32c7a5f6a27",
        ("aarch64", True): "8cb5490881fe6365",
        ("aarch64", False): "4af474bea4b27a63",
    }


def test_a_card_changes_what_ioctl_may_say_and_nothing_else(machine: str) -> None:
    column = list(ARCHITECTURES).index(machine)
    for number in range(600):
        if number != NAMES["ioctl"][column]:
            for arguments in ((), (1, 1, 1, 1, 1, 1), (0x1000_0000, 0x80, 4, 1 << 40, 1 << 40, 0)):
                for forks in (True, False):
                    without = decide(machine, number, *arguments, forks=forks)
                    assert decide(machine, number, *arguments, forks=forks, card=True) == without


@pytest.mark.parametrize(
    ("request_", "decision"),
    [
        (0xC020_462B, seccomp.ALLOW),  # NV_ESC_RM_ALLOC, of 32 bytes …
        (0xC030_462B, seccomp.ALLOW),  # … and of 48: the size may change with the driver
        (0xC048_46C8, seccomp.ALLOW),  # NV_ESC_CARD_INFO
        (0xC008_46D1, ENOTTY),  # NV_ESC_EXPORT_TO_DMABUF_FD: memory that would outlive the unit's own descriptors
        (0xC020_4659, ENOTTY),  # NV_ESC_RM_BIND_CONTEXT_DMA, of displays
        (0x8020_462B, ENOTTY),  # read only: no call of this driver
        (0xC020_6D00, ENOTTY),  # 'm': nvidia-modeset
        (0xC020_642B, ENOTTY),  # 'd': DRM
        (0x3000_0001, seccomp.ALLOW),  # UVM_INITIALIZE
        (37, seccomp.ALLOW),  # UVM_REGISTER_GPU
        (62, ENOTTY),  # UVM_TOOLS_READ_PROCESS_MEMORY
        (63, ENOTTY),  # UVM_TOOLS_WRITE_PROCESS_MEMORY
        (200, ENOTTY),  # the first of UVM's tests
        (0x5401, seccomp.ALLOW),  # TCGETS, as without a card
        (0x5412, ENOTTY),  # TIOCSTI
    ],
)
def test_what_a_unit_with_a_card_may_say_to_the_driver(machine: str, request_: int, decision: int) -> None:
    assert call(machine, "ioctl", 3, request_, card=True) == decision
    terminal = request_ == 0x5401
    assert call(machine, "ioctl", 3, request_) == (seccomp.ALLOW if terminal else ENOTTY)


def test_jumps_stay_within_what_the_kernel_accepts(machine: str) -> None:
    for steps in (PROGRAMS[machine, forks, card] for forks in (True, False) for card in (True, False)):
        assert len(steps) <= 4096
        for place, step in enumerate(steps):
            assert 0 <= step.if_true <= 255
            assert 0 <= step.if_false <= 255
            assert step.code == 0x06 or place + 1 + max(step.if_true, step.if_false) < len(steps)


def test_a_machine_whose_numbers_are_unknown_gets_no_filter_and_no_units() -> None:
    with pytest.raises(OSError, match="no system call filter for riscv64"):
        seccomp.program("riscv64", forks=True)
