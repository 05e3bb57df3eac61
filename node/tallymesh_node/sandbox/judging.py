"""How a unit ended, from what its job's process, the kernel and the node's own clock say: whose fault it was, where it
gave nothing. This module runs and stops nothing.
"""

from __future__ import annotations

import os
import signal

import msgspec

from tallymesh_node.interfaces import Failure, Limits
from tallymesh_node.sandbox import outputs
from tallymesh_node.sandbox.jobs import Ended, RunningUnit
from tallymesh_node.sandbox.logs import Logs

_REASONS = {
    "wall": "It ran longer than {0.wall_s:g} s.",
    "memory": "It used more than {0.memory_mib} MiB of memory.",
    "processes": "It had more than {0.processes} processes.",
    "files": "It had too many files open.",
    "disk": "It wrote more than {0.disk_mib} MiB, or too many files.",
}
_SETUP_FAILED = 97  # as tallymesh_learning.runtime.unit has it


class Verdict(msgspec.Struct, frozen=True):
    cpu_s: float
    output_bytes: int


def judge(unit: RunningUnit, limits: Limits, logs: Logs) -> Verdict:
    """What the unit used, if it ran to its end; else Failure."""
    ended = unit.ended
    if unit.out_of_memory:  # the kernel was faster than the job's process
        raise Failure("limits", _REASONS["memory"].format(limits))
    if unit.overdue:  # whatever kept the job's process from saying so: a unit that starves it did
        raise Failure("limits", _REASONS["wall"].format(limits))
    if unit.starved:  # of one payer, one program: no other machine would fare better
        raise Failure("limits", "Another unit of its job ran too long and left the job's sandbox no time to answer.")
    if ended is None or unit.outputs is None:
        raise Failure("sandbox", (ended.error if ended else "") or "The job's sandbox died while the unit ran.")
    if ended.reason:
        sentence = _REASONS.get(ended.reason)
        raise Failure("limits", sentence.format(limits)) if sentence else Failure("sandbox", "The unit was killed.")
    said = outputs.read_failure(unit.outputs)
    if said is not None:
        raise Failure("limits", _REASONS["disk"].format(limits), said.traceback) if ended.full else said
    code = os.waitstatus_to_exitcode(ended.status)
    if code:
        raise _crash(code, ended, limits, logs)
    try:
        size = os.stat("output", dir_fd=unit.outputs, follow_symlinks=False).st_size
    except FileNotFoundError:
        if ended.full:  # no room even to say so
            raise _crash(code, ended, limits, logs) from None
        size = 0
    return Verdict(ended.cpu_s, size)


def _crash(code: int, ended: Ended, limits: Limits, logs: Logs) -> Failure:
    if code == _SETUP_FAILED and logs.begin_s is None:
        return Failure("sandbox", "The unit could not be isolated, so it was not run.")
    if ended.full:
        return Failure("limits", _REASONS["disk"].format(limits))
    if code == -signal.SIGKILL:  # it is the first process of its namespace: nothing in there can kill it
        return Failure("sandbox", "The machine ran out of memory and killed the unit.")
    if code in (-signal.SIGXFSZ, -signal.SIGXCPU):
        return Failure("limits", f"It was ended by {signal.Signals(-code).name}.")
    if code < 0:
        return Failure("program", f"It crashed ({signal.Signals(-code).name}).")
    return Failure("program", f"It ended with status {code} and without an account of why.")
