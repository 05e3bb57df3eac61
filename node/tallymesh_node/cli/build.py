"""`tallymesh build`: the job package of a program, with files, hashes and sizes, and nothing sent."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.output import Json, facts, say_json, table
from tallymesh_node.cli.run import command_of, run_child

if TYPE_CHECKING:
    from tallymesh.client.building import Package

_STDERR: Final = 2  # the descriptor: a child knows nothing of sys.stderr


def build(
    program: Annotated[Path, typer.Argument(help="A Python script, or a job.toml.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to the script.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the package in this folder, which must be new.")] = None,
    json_: Json = False,
) -> None:
    """Show the job package of a program: files, hashes, sizes. Nothing is sent.

    The program runs as far as its first tallymesh.map or tallymesh.train, and ends there. Neither a node nor a budget
    is needed. What it prints goes to standard error.

    \b
    Examples:
      tallymesh build examples/map_area.py
      tallymesh build examples/train_digits.py --out package
      tallymesh build my_job.toml --json | jq .files
    """
    from tallymesh.client import building

    if out is not None and out.exists():
        raise CallerError("exists", f"There is something at {out} already.", remedy="Name a folder that is not there.")
    command = command_of(program, arguments or [])
    with tempfile.TemporaryDirectory(prefix="tallymesh-build-") as folder:
        place = Path(folder) / "package"
        code = run_child(command, {**os.environ, building.VARIABLE: str(place)}, stdout=_STDERR)
        if code:
            raise CallerError(
                "program_failed", f"{program} ended with status {code} before it had a job: see what it says above."
            )
        package = building.read(place)
        if out is not None:
            shutil.copytree(place, out)
    if json_:
        say_json(package)
    else:
        _show(package)


def _show(package: Package) -> None:
    from tallymesh import amounts

    facts(
        [
            ("job", f"{package.name}: {package.kind}, {_many(package.units, 'unit')}"),
            ("rounds", str(package.rounds) if package.rounds else ""),
            ("seed", str(package.seed)),
            ("template", package.job),
            ("program", package.program),
            ("profile", package.numeric_profile),
            *((stage.name, f"{stage.entry}, {stage.work_s:g} reference-seconds each") for stage in package.stages),
            ("inputs", f"{package.inputs}, {size(package.inputs_bytes)}"),
            ("test data", size(package.test_bytes) if package.test_bytes else ""),
            ("checkpoint 0", size(package.initial_bytes) if package.initial_bytes else ""),
            ("runs", f"{package.runs} ({package.verify})" if package.runs != package.units else ""),
            ("budget", amounts.show(int(package.budget_wei)) if package.budget_wei != "0" else ""),
            ("all of it", size(package.bytes)),
        ]
    )
    print()
    rows = [(file.path, size(file.bytes), file.hash) for file in package.files]
    table(("file", "size", "hash"), rows, empty="no files")
    if package.packages:
        print()
        named = [(each.requirement, size(each.bytes)) for each in package.packages]
        table(("package, as requires= takes it again", "size"), named, empty="no packages")


def size(count: int) -> str:
    """Bytes as people read them: 1,023 B, 4.2 KiB, 17.0 MiB."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:,.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:,.1f} MiB"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
