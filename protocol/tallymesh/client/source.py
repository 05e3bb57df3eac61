"""Where a job's facts come from: a node, or a child process on this machine. `Job` is the same over both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol, Self

import msgspec

from tallymesh.api import AuditView, EventView, JobView, Problem, ReceiptView, ResultsView
from tallymesh.client.session import Session

ENDED: Final = ("done", "failed", "cancelled")


class Source(Protocol):
    """One job as its driver sees it. `outlives` says whether it goes on when this program ends."""

    outlives: bool
    backend: str

    def view(self) -> JobView: ...

    def events(self, after: int = 0, *, follow: bool = True) -> Iterator[EventView]: ...

    def why(self) -> list[Problem]: ...

    def receipts(self) -> list[ReceiptView]: ...

    def audits(self) -> list[AuditView]: ...

    def results(self) -> ResultsView: ...

    def blob(self, name: str) -> bytes: ...

    def cancel(self) -> None: ...

    async def ended(self) -> None:
        """Return when the job has ended; for asyncio and trio alike."""

    def aside(self) -> Self | None:
        """The same job for another thread, which closes it; None where nothing in the job waits for others."""

    def close(self) -> None:
        """Give back what `aside` opened."""


class NetworkSource:
    """A job that a node drives."""

    outlives = True
    backend = "network"

    def __init__(self, session: Session, job_id: str) -> None:
        self._session = session
        self._id = job_id
        self._path = f"/v1/jobs/{job_id}"

    def view(self) -> JobView:
        return self._session.get(self._path, JobView)

    def events(self, after: int = 0, *, follow: bool = True) -> Iterator[EventView]:
        return self._session.events(self._id, after, follow=follow)

    def why(self) -> list[Problem]:
        return self._session.get(f"{self._path}/why", list[Problem])

    def receipts(self) -> list[ReceiptView]:
        return self._session.rows(f"{self._path}/receipts", ReceiptView)

    def audits(self) -> list[AuditView]:
        return self._session.rows(f"{self._path}/audits", AuditView)

    def results(self) -> ResultsView:
        return self._session.get(f"{self._path}/results", ResultsView)

    def blob(self, name: str) -> bytes:
        return self._session.blob(name)

    def cancel(self) -> None:
        self._session.post(f"{self._path}/cancel", b"", JobView)

    async def ended(self) -> None:
        await self._session.wait_ended(self._id)

    def aside(self) -> NetworkSource:
        return NetworkSource(self._session.another(), self._id)

    def close(self) -> None:
        self._session.close()


def fold(view: JobView, event: EventView) -> JobView:
    """The view after one event: for sources that have events and no node that keeps the view."""
    data = event.data
    change: dict[str, Any] = {}
    if event.kind == "status":
        change["status"] = str(data["status"])
    elif event.kind == "unit":
        change["units_done"] = view.units_done + 1
        if view.kind == "map" and view.status in ("preparing", "matching"):
            change["status"] = "running"
    elif event.kind == "round":
        change["rounds_done"] = int(data["round"])
        change["units_done"] = view.units_done + int(data.get("units", 0))  # of clients computed together
        change["metrics"] = {**view.metrics, **data.get("metrics", {})}
    elif event.kind == "metric":
        change["metrics"] = {**view.metrics, str(data["name"]): float(data["value"])}
    elif event.kind == "done":
        change["status"] = str(data["status"])
        change["finished"] = event.at
        change["result"] = str(data.get("result", ""))
        change["metrics"] = {**view.metrics, **data.get("metrics", {})}
        if data.get("problem"):
            change["problem"] = msgspec.convert(data["problem"], Problem)
    return msgspec.structs.replace(view, **change) if change else view
