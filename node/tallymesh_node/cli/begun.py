"""A deployment that is under way, kept beside the network file that it will give: the same command goes on with it.

What a deployment is of (account, chain, terms) must be the same again: addresses follow from the account, and contracts
that were made cannot be given other terms.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, LocalError

if TYPE_CHECKING:
    from tallymesh_ledger.deploy import Begun

SUFFIX: Final = ".begun"


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nonce: int
    block: int
    of: dict[str, Any]  # account, chain and terms


class BegunFile:
    """Beside `out`."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + SUFFIX)

    def found(self, of: dict[str, Any]) -> Begun | None:
        """What broke off, None where nothing did. CallerError `other_deployment` where it was of something else."""
        from tallymesh_ledger.deploy import Begun

        if not self.path.exists():
            return None
        try:
            kept = msgspec.json.decode(self.path.read_bytes(), type=Kept)
        except (OSError, *UNREADABLE) as error:
            raise LocalError(
                "begun", f"{self.path} cannot be read: {error}.", remedy="Remove it to begin anew."
            ) from None
        if kept.of != of:
            other = ", ".join(sorted(name for name in {*of, *kept.of} if of.get(name) != kept.of.get(name)))
            raise CallerError(
                "other_deployment",
                f"{self.path} is of a deployment that broke off, and was of another {other}.",
                remedy="Give the same again to go on with it, or remove that file to begin anew.",
            )
        return Begun(kept.nonce, kept.block)

    def keep(self, begun: Begun, of: dict[str, Any]) -> None:
        """On disk when it returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("wb") as file:
                file.write(msgspec.json.encode(Kept(begun.nonce, begun.block, of)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LocalError("begun", f"{self.path} cannot be written: {error}. Nothing was sent.") from None

    def drop(self) -> None:
        """It is done, or can never be."""
        self.path.unlink(missing_ok=True)
