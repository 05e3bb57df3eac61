"""`blob ls|pin|unpin|rm|gc`: what lies in the node's store, what is kept whatever comes, and what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.output import Json, ago, facts, say_json, table

if TYPE_CHECKING:
    from tallymesh.api import StoreView

SHORT: Final = 12  # hex digits of an id that the table shows
SHOWN: Final = 40  # rows of the table without --all

Blob = Annotated[str, typer.Argument(metavar="BLOB", help="A blob's id, or enough of its beginning.")]


def ls(
    all_: Annotated[bool, typer.Option("--all", help="A thousand rows, not forty.")] = False,
    json_: Json = False,
) -> None:
    """What lies in the node's store, the largest first, and who needs it.

    A blob that nobody needs goes when room is needed, the longest unused first. What is pinned stays.

    \b
    Examples:
      tallymesh blob ls
      tallymesh blob ls --json | jq '.needed'
    """
    view = _view()
    if json_:
        say_json(view)
        return
    rows = [
        (row.id[:SHORT], _size(row.bytes), ago(row.used), "; ".join(row.needed) or "nobody")
        for row in view.rows[: None if all_ else SHOWN]
    ]
    table(("blob", "size", "used", "needed by"), rows, empty="no blobs yet")
    left = view.blobs - len(rows)
    facts(
        [
            ("", ""),
            ("more", f"{left} smaller ones" if left else ""),
            ("in all", f"{_size(view.bytes)} of {_size(view.bytes_max)}, {_size(view.disk_free)} free on the disk"),
            *((f"  {name}", _size(size)) for name, size in view.needed.items()),
            ("pinned, not here", ", ".join(blob[:SHORT] for blob in view.absent)),
        ]
    )


def pin(blob: Blob, json_: Json = False) -> None:
    """Keep a blob, whatever needs room. It may come later: then its whole id is needed.

    \b
    Examples:
      tallymesh blob pin 3fa9c1d27b40
      tallymesh blob pin "$(tallymesh ls --json | jq -r '.[0].result')"
    """
    _pin(blob, json_, pinned=True)


def unpin(blob: Blob, json_: Json = False) -> None:
    """Let a blob go when room is needed, if nobody needs it.

    \b
    Examples:
      tallymesh blob unpin 3fa9c1d27b40
    """
    _pin(blob, json_, pinned=False)


def rm(blob: Blob, json_: Json = False) -> None:
    """Remove a blob now: of jobs that are over, their results, too.

    What is pinned, or needed by what goes on here (a job, a seat, an audit, evidence that somebody may still ask for),
    is refused.

    \b
    Examples:
      tallymesh blob rm 3fa9c1d27b40
    """
    from tallymesh.api import FreedView
    from tallymesh.client.session import current

    name = _whole(blob)
    freed = current().delete(f"/v1/blobs/{name}", FreedView)
    if json_:
        say_json({"id": name, "bytes": freed.bytes})
    else:
        print(f"removed {name[:SHORT]}, {_size(freed.bytes)}")


def gc(json_: Json = False) -> None:
    """Drop all blobs that nobody needs, whether room is needed or not.

    What came or was used within the last ten minutes stays: whoever fetched it may be about to use it.

    \b
    Examples:
      tallymesh blob gc
      tallymesh blob gc --json
    """
    from tallymesh.api import FreedView
    from tallymesh.client.session import current

    freed = current().post("/v1/blobs/collect", b"", FreedView, timeout_s=_GC_S)
    if json_:
        say_json(freed)
    else:
        print(f"dropped {freed.blobs} blob{'s' * (freed.blobs != 1)}, {_size(freed.bytes)}")


_GC_S = 600.0  # the journals of all seats are read


def _view() -> StoreView:
    from tallymesh.api import StoreView
    from tallymesh.client.session import current

    return current().get("/v1/blobs", StoreView)


def _pin(blob: str, json_: bool, *, pinned: bool) -> None:
    from tallymesh.api import PinView
    from tallymesh.client.session import current

    name = _whole(blob)
    session = current()
    path = f"/v1/blobs/{name}/pin"
    view = session.put(path, PinView) if pinned else session.delete(path, PinView)
    if json_:
        say_json(view)
    else:
        here = "" if view.here else ", which is not here yet"
        print(f"{'pinned' if view.pinned else 'no longer pinned:'} {name[:SHORT]}{here if view.pinned else ''}")


def _whole(text: str) -> str:
    """CallerError where no blob, or more than one, begins so."""
    text = text.strip().lower()
    if len(text) == 64:
        return text
    view = _view()
    found = {name for name in (*(row.id for row in view.rows), *view.absent) if name.startswith(text)} if text else ()
    if len(found) != 1:
        how_many = f"{len(found)} blobs begin" if found else "No blob begins"
        raise CallerError("no_blob", f"{how_many} with {text[:64]!r}.", remedy="See: tallymesh blob ls --all")
    return next(iter(found))


def _size(size: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
