"""`tallymesh run`: a script or a job file, in a process of its own.

Budget, backend and newcomers go to the child as defaults (TALLYMESH_BUDGET, TALLYMESH_BACKEND, TALLYMESH_NEWCOMERS):
what the program says itself wins. The child's exit code is ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.output import Json


def run(
    program: Annotated[Path, typer.Argument(help="A Python script, or a job.toml.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to the script.")] = None,
    budget: Annotated[str | None, typer.Option(help="The most it may cost, in whole tokens: 5 or 2.5.")] = None,
    backend: Annotated[str | None, typer.Option(help="network (the default), local or ray.")] = None,
    newcomers: Annotated[
        bool, typer.Option("--newcomers", help="Give work to accounts without stake, too; all of theirs is recomputed.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="job.toml: submit, print the id, do not wait.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a Python script, or the job that a TOML file describes.

    The script is an ordinary one that uses `import tallymesh`; --budget, --backend and --newcomers are its defaults:
    what it says itself wins. With a job.toml the job's outcome is shown, as JSON with --json.

    \b
    Examples:
      tallymesh run examples/train_digits.py
      tallymesh run examples/train_digits.py --backend local
      tallymesh run my_program.py --budget 5 -- --epochs 3
      tallymesh run my_job.toml --json

    \b
    A job.toml names functions in files of yours, which lie beside it:
      map = "area.py:area"          # or: train = "net.py:model", loss = "net.py:loss", data = "mydata.py:train_set"
      inputs = [1, 2, 3]            # or: inputs = "items.json"; options of tallymesh.map or tallymesh.train
      budget = "2.0"
      [arguments]                   # keyword arguments of the function
      scale = 2.0
    """
    from tallymesh import amounts

    environment = dict(os.environ)
    if budget is not None:
        amounts.parse(budget)
        environment["TALLYMESH_BUDGET"] = budget
    if backend is not None:
        from tallymesh.client.submit import BACKENDS

        if backend not in BACKENDS:  # said here, and not by a traceback of the script
            raise CallerError(
                "bad_backend", f"There is no backend {backend!r}.", remedy=f"Use one of {', '.join(BACKENDS)}."
            )
        environment["TALLYMESH_BACKEND"] = backend
    if newcomers:
        environment["TALLYMESH_NEWCOMERS"] = "1"
    flags = [*(["--json"] if json_ else []), *(["--detach"] if detach else [])]
    if program.suffix != ".toml" and flags:
        raise CallerError(
            "bad_usage",
            "--detach and --json are for a job.toml; a script decides itself.",
            remedy="A script detaches by ending without waiting for its job.",
        )
    raise typer.Exit(run_child(command_of(program, [*flags, *(arguments or [])]), environment))


def command_of(program: Path, arguments: list[str]) -> list[str]:
    """What runs it. CallerError `no_program`."""
    if not program.is_file():
        raise CallerError("no_program", f"There is no file {program}.")
    what = ["-m", "tallymesh.client.jobfile"] if program.suffix == ".toml" else []
    return [sys.executable, *what, str(program), *arguments]


def run_child(command: list[str], environment: dict[str, str], *, stdout: int | None = None) -> int:
    """The child's exit code; 128 + n where signal n ended it, as a shell says it."""
    # Ctrl-C goes to the whole group: it is the child's to answer (it may ask whether to detach), we only wait.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(  # noqa: S603 - the owner's own program
            command, env=environment, stdout=stdout, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        )
        signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code
