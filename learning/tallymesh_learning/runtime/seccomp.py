"""The system calls that a unit may make: an allow-list, as a classic BPF program that the kernel runs on each call.

What is not listed is refused: EPERM, or ENOSYS for calls newer than this list, so that libc falls back to an older one.
Above all: no new namespaces, no mounts, no sockets but a connected unix pair, no tracing, keyrings, io_uring, BPF or
perf, and no memory that the limits do not see (memfd, System V shared memory, large pipes). The program is a binary
search over ranges of numbers, about eight comparisons a call. Source of the format: Linux, Documentation/userspace-api/
seccomp_filter.rst. This module knows nothing of units; a test runs its programs in a small interpreter as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

# One line a subject, each call as name:x86_64:aarch64 (empty: that architecture does not have it). From Linux 6.1's
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_ALLOWED = """
files, inside what is mounted
read:0:63 write:1:64 open:2: close:3:57 stat:4: fstat:5:80 lstat:6: newfstatat:262:79 statx:332:291 lseek:8:62
pread64:17:67 pwrite64:18:68 readv:19:65 writev:20:66 preadv:295:69 pwritev:296:70 preadv2:327:286
pwritev2:328:287 access:21: faccessat:269:48 faccessat2:439:439 openat:257:56 openat2:437:437 creat:85:
rename:82: renameat:264:38 renameat2:316:276 mkdir:83: mkdirat:258:34 rmdir:84: link:86: linkat:265:37
unlink:87: unlinkat:263:35 symlink:88: symlinkat:266:36 readlink:89: readlinkat:267:78 chmod:90: fchmod:91:52
fchmodat:268:53 chown:92: fchown:93:55 lchown:94: fchownat:260:54 truncate:76:45 ftruncate:77:46
fallocate:285:47 fadvise64:221:223 fsync:74:82 fdatasync:75:83 flock:73:32 getdents:78: getdents64:217:61
getcwd:79:17 chdir:80:49 fchdir:81:50 umask:95:166 utime:132: utimes:235: futimesat:261: utimensat:280:88
statfs:137:43 fstatfs:138:44 getxattr:191:8 lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11 llistxattr:195:12
flistxattr:196:13 sendfile:40:71 copy_file_range:326:285 splice:275:76 dup:32:23 dup2:33: dup3:292:24
close_range:436:436 pipe:22:
waiting for descriptors
poll:7: ppoll:271:73 select:23: pselect6:270:72 epoll_create:213: epoll_create1:291:20 epoll_ctl:233:21
epoll_wait:232: epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284: eventfd2:290:19 signalfd:282:
signalfd4:289:74 timerfd_create:283:85 timerfd_settime:286:86 timerfd_gettime:287:87
memory
mmap:9:222 munmap:11:215 mremap:25:216 mprotect:10:226 madvise:28:233 msync:26:227 brk:12:214 mlock:149:228
mlock2:325:284 munlock:150:229 mlockall:151:230 munlockall:152:231 get_mempolicy:239:236 membarrier:324:283
threads, processes of the unit itself, signals
futex:202:98 futex_waitv:449:449 set_robust_list:273:99 get_robust_list:274:100 set_tid_address:218:96
rseq:334:293 arch_prctl:158: exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95 kill:62:129 tkill:200:130
tgkill:234:131 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136
rt_sigtimedwait:128:137 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 rt_sigsuspend:130:133
sigaltstack:131:132 pause:34: pidfd_open:434:434 pidfd_send_signal:424:424 restart_syscall:219:128 getpid:39:172
getppid:110:173 gettid:186:178 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148
getresgid:120:150 getgroups:115:158 getpgrp:111: getpgid:121:155 setpgid:109:154 getsid:124:156 setsid:112:157
capget:125:90 getrlimit:97:163 getrusage:98:165 times:100:153
getpriority:140:141 setpriority:141:140 ioprio_get:252:31 sched_yield:24:124 sched_getaffinity:204:123
sched_getparam:143:121 sched_getscheduler:145:120 sched_setscheduler:144:119
sched_get_priority_max:146:125 sched_get_priority_min:147:126 sched_rr_get_interval:148:127
sched_getattr:315:275 getcpu:309:168
time and facts
clock_gettime:228:113 clock_getres:229:114 clock_nanosleep:230:115 nanosleep:35:101 gettimeofday:96:169
time:201: getitimer:36:102 setitimer:38:103 alarm:37: timer_create:222:107 timer_settime:223:110
timer_gettime:224:108 timer_getoverrun:225:109 timer_delete:226:111 uname:63:160 sysinfo:99:179
getrandom:318:278
a connected pair of sockets, which asyncio and multiprocessing need, and no way to give one an address
sendmsg:46:211 recvmsg:47:212 recvfrom:45:207 recvmmsg:299:243 shutdown:48:210 getsockname:51:204
getpeername:52:205 getsockopt:55:209
"""
NEWEST = 450  # the last call of Linux 6.1: above it ENOSYS

# Calls that depend on an argument; what each may do is in `_rules`.
_RULED = """
clone:56:220 clone3:435:435 fork:57: vfork:58: execve:59:221 socketpair:53:199 sendto:44:206 setsockopt:54:208
ioctl:16:29 prctl:157:167 fcntl:72:25 pipe2:293:59 personality:135:92 setrlimit:160:164 prlimit64:302:261
"""

_MACHINES = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}  # column, AUDIT_ARCH of linux/audit.h

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_MASK = 0x54
_OFFSET_NUMBER, _OFFSET_MACHINE, _OFFSET_ARGUMENTS = 0, 4, 16  # struct seccomp_data, little-endian
_STEP = struct.Struct("HBBI")  # struct sock_filter
KILL, ALLOW, _ERRNO = 0x8000_0000, 0x7FFF_0000, 0x0005_0000

_CLONE_THREAD = 0x0001_0000
_CLONE_NEW = 0x7E02_0000  # every CLONE_NEW… flag that clone(2) takes
_AF_UNIX = 1
_SOCKET_OPTIONS = (2, 7, 8, 9, 16, 20, 21)  # REUSEADDR SNDBUF RCVBUF KEEPALIVE PASSCRED *TIMEO; no BPF filters
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
# What a unit that leased a card may say to NVIDIA's driver besides. Of its own devices (type byte 'F', read and write,
# any size): what CUDA's compute path uses, and nothing of displays, debuggers or management. Of nvidia-uvm, whose
# numbers are plain: the same, without its tools (which read other processes) and tests. Numbers: open-gpu-kernel-
# modules, nv-ioctl-numbers.h, nv_escape.h, uvm_ioctl.h; which are enough: gVisor's nvproxy, which knows no others.
_CARD_MASK, _CARD_TYPE = 0xC000_FFFF, 0xC000_4600
_CARD_NUMBERS = (
    *(200, 201, 206, 207, 210, 212, 214, 215, 218),  # CARD_INFO REGISTER_FD *_OS_EVENT VERSION ATTACH SYS NUMA WAIT
    *(0x27, 0x29, 0x2A, 0x2B, 0x34, 0x35, 0x41, 0x4A, 0x4E, 0x4F, 0x54, 0x57, 0x58, 0x5E),  # NV_ESC_RM_…
)
_CARD_PLAIN = (
    *(0x3000_0001, 0x3000_0002),  # UVM_INITIALIZE, UVM_DEINITIALIZE
    *(23, 24, 25, 26, 27, 28, 29, 30, 31, 33, 34, 37, 38, 39, 42, 43, 44, 45, 46, 47, 51, 53),
    *(65, 66, 68, 70, 72, 73, 75),
)
_PRCTLS = (1, 2, 3, 4, 15, 16, 29, 30, 38, 39, 41, 42, 0x5356_4D41)  # PDEATHSIG DUMPABLE NAME TIMERSLACK NNP THP VMA
_FCNTL_REFUSED = (1024, 1026, 1031)  # F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ (a mebibyte of kernel memory each)
_O_NOTIFICATION_PIPE = 0x80
_RLIMIT_CORE = 4  # stays at 1 byte, which alone keeps the kernel from piping a core dump into the owner's handler
_PERSONALITY_QUERY = 0xFFFF_FFFF

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class Step(NamedTuple):
    """One BPF instruction: operation, jumps if true and if false (counted from the next), constant."""

    code: int
    if_true: int
    if_false: int
    value: int


Block = list[Step]


def program(machine: str, *, forks: bool, card: bool = False) -> list[Step]:
    """The filter for `machine` (`uname -m`). Without `forks` a unit may start threads but no process and no program;
    with a `card` it may talk to NVIDIA's driver.

    OSError where the numbers for the machine are not known.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system call filter for {machine}: only for {', '.join(_MACHINES)}")
    column, audit = _MACHINES[machine]
    blocks = {number: [_give(ALLOW)] for number in _numbers(_ALLOWED, column).values()}
    for name, number in _numbers(_RULED, column).items():
        blocks[number] = _rules(forks, card)[name]
    ranges: list[tuple[int, Block]] = []
    for number in range(NEWEST + 1):
        block = blocks.get(number, [_refuse(errno.EPERM)])
        if not ranges or ranges[-1][1] != block:
            ranges.append((number, block))
    ranges.append((NEWEST + 1, [_refuse(errno.ENOSYS)]))  # x32's numbers, which have bit 30 set, end here too
    return [
        Step(_LOAD, 0, 0, _OFFSET_MACHINE),
        Step(_JUMP_EQUAL, 1, 0, audit),
        _give(KILL),  # a call through another ABI has other numbers
        Step(_LOAD, 0, 0, _OFFSET_NUMBER),
        *_search(ranges),
    ]


@lru_cache(maxsize=4)
def compiled(*, forks: bool, card: bool = False) -> bytes:
    """The filter for this machine as the kernel reads it. The template asks once, so that no unit waits for it."""
    return b"".join(_STEP.pack(*step) for step in program(os.uname().machine, forks=forks, card=card))


def install(*, forks: bool, card: bool = False) -> None:
    """Put the filter on this thread and all that it starts, for good. Needs no_new_privs."""
    code = ctypes.create_string_buffer(compiled(forks=forks, card=card))
    header = struct.pack("HxxxxxxP", (len(code) - 1) // _STEP.size, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, ctypes.c_ulong(0), ctypes.c_ulong(0)) < 0:
        raise OSError(ctypes.get_errno(), "the system call filter was refused")


def _rules(forks: bool, card: bool) -> dict[str, Block]:
    may_fork = [_give(ALLOW)] if forks else [_refuse(errno.EPERM)]
    threads_only = [] if forks else [Step(_JUMP_ANY_BIT, 1, 0, _CLONE_THREAD), _refuse(errno.EPERM)]
    return {
        "clone": [
            _argument(0), Step(_JUMP_ANY_BIT, 0, 1, _CLONE_NEW), _refuse(errno.EPERM), *threads_only, _give(ALLOW),
        ],
        "clone3": [_refuse(errno.ENOSYS)],  # its flags are behind a pointer; libc falls back to clone
        "fork": may_fork,
        "vfork": may_fork,
        "execve": may_fork,
        "socketpair": _only(0, (_AF_UNIX,), errno.EPERM),
        "sendto": [  # send() is sendto() without an address
            _argument(4),
            Step(_JUMP_EQUAL, 0, 3, 0),
            _argument(4, high=True),
            Step(_JUMP_EQUAL, 0, 1, 0),
            _give(ALLOW),
            _refuse(errno.EPERM),
        ],
        "setsockopt": _only(2, _SOCKET_OPTIONS, errno.EPERM),
        "ioctl": _card_ioctls() if card else _only(1, _IOCTLS, errno.ENOTTY),
        "prctl": _only(0, _PRCTLS, errno.EPERM),
        "fcntl": _except(1, _FCNTL_REFUSED),
        "pipe2": [
            _argument(1), Step(_JUMP_ANY_BIT, 0, 1, _O_NOTIFICATION_PIPE), _refuse(errno.EPERM), _give(ALLOW),
        ],
        "setrlimit": _except(0, (_RLIMIT_CORE,)),
        "prlimit64": [  # with no new limit it only asks
            _argument(1),
            Step(_JUMP_EQUAL, 0, 4, _RLIMIT_CORE),
            _argument(2),
            Step(_JUMP_EQUAL, 0, 3, 0),
            _argument(2, high=True),
            Step(_JUMP_EQUAL, 0, 1, 0),
            _give(ALLOW),
            _refuse(errno.EPERM),
        ],
        "personality": _only(0, (_PERSONALITY_QUERY,), errno.EPERM),
    }  # fmt: skip


def _card_ioctls() -> Block:
    """Those of NVIDIA's devices, whose size is part of the number and may be any; then the plain ones, as for all."""
    tests = (Step(_JUMP_EQUAL, 0, 1, _CARD_TYPE | number) for number in _CARD_NUMBERS)
    of_card = [step for test in tests for step in (test, _give(ALLOW))]
    return [_argument(1), Step(_MASK, 0, 0, _CARD_MASK), *of_card, *_only(1, (*_IOCTLS, *_CARD_PLAIN), errno.ENOTTY)]


def _only(argument: int, values: Sequence[int], code: int) -> Block:
    count = len(values)
    tests = [Step(_JUMP_EQUAL, count - index, 0, value) for index, value in enumerate(values)]
    return [_argument(argument), *tests, _refuse(code), _give(ALLOW)]


def _except(argument: int, values: Sequence[int]) -> Block:
    count = len(values)
    tests = [Step(_JUMP_EQUAL, count - index, 0, value) for index, value in enumerate(values)]
    return [_argument(argument), *tests, _give(ALLOW), _refuse(errno.EPERM)]


def _search(ranges: Sequence[tuple[int, Block]]) -> Block:
    """Binary search for the range that holds the number; every way through it ends in a return."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    if len(below) <= 255:  # a conditional jump reaches no further
        return [Step(_JUMP_AT_LEAST, len(below), 0, ranges[middle][0]), *below, *above]
    return [Step(_JUMP_AT_LEAST, 0, 1, ranges[middle][0]), Step(0x05, 0, 0, len(below)), *below, *above]


def _numbers(table: str, column: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in table.split():
        name, *numbers = word.split(":")
        if len(numbers) == 2 and numbers[column]:
            found[name] = int(numbers[column])
    return found


def _give(action: int) -> Step:
    return Step(_RETURN, 0, 0, action)


def _refuse(code: int) -> Step:
    return _give(_ERRNO | code)


def _argument(index: int, *, high: bool = False) -> Step:
    return Step(_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * index + (4 if high else 0))
