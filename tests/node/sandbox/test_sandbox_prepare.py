"""A job's sandbox that is opened before its first unit is here."""

from __future__ import annotations

from fakes.sandboxed import Machine
from tallymesh_node.interfaces import Failure


def test_the_first_unit_runs_in_the_sandbox_that_was_prepared(machine: Machine) -> None:
    opened = machine.executor.pool.sandboxes_opened
    machine.call(machine.executor.prepare, b"soon")
    machine.call(machine.executor.prepare, b"soon")
    assert machine.executor.pool.sandboxes_opened == opened + 1
    machine.run("echo", job=b"soon")
    assert machine.executor.pool.sandboxes_opened == opened + 1
    machine.call(machine.executor.close_job, b"soon")
    assert b"soon" not in machine.executor.pool._jobs


def test_preparing_that_fails_is_no_error_before_a_unit_asks(machine: Machine) -> None:
    async def full() -> None:
        raise Failure("sandbox", "32 jobs run here already.")

    kept = machine.executor.pool._make_room
    machine.executor.pool._make_room = full  # type: ignore[method-assign]
    try:
        machine.call(machine.executor.prepare, b"late")
    finally:
        machine.executor.pool._make_room = kept  # type: ignore[method-assign]
    machine.run("echo", job=b"late")
    machine.call(machine.executor.close_job, b"late")
