"""`Job`: what `map`, `train` and `attach` return. The same over a node and over the local backend."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from tallymesh import amounts, values
from tallymesh.api import AuditView, EventView, JobView, Problem, ReceiptView
from tallymesh.client import progress as showing
from tallymesh.client import waiting
from tallymesh.client.edge import edge
from tallymesh.client.outputs import LogLine, Round, Rows, UnitOutput
from tallymesh.client.result import Result
from tallymesh.client.source import ENDED, Source
from tallymesh.errors import CallerError, LocalError, RemoteError, TallymeshError

# Problems that the submitter's own program or terms made.
_CALLERS = frozenset(
    {
        "program",
        "limits",
        "not_deterministic",
        "inputs",
        "form",
        "budget_too_small",
        "unit_failed",
        "local_ended",
        "deadline",
        "no_offers",
        "cancelled",
    }
)

# What a program raises that reaches for this machine's files or for the network: it works at home, and only there.
_OUTSIDE = frozenset({"FileNotFoundError", "PermissionError", "URLError", "ConnectionError", "gaierror", "OSError"})
_OUTSIDE_REMEDY = (
    "Units run in a sandbox without your files and without a network: read files on your side, and pass what they hold."
)


class Job:
    """One submitted job. Everything is asked of its driver when it is needed; nothing here is a copy that can age,
    except what is final once the job has ended."""

    def __init__(self, job_id: str, source: Source) -> None:
        self.id = job_id
        self._source = source
        self._last: JobView | None = None
        self._result: Result | None = None

    def __repr__(self) -> str:
        view = self._last
        if view is None:
            return f"<Job {self.id[:12]}>"
        done = f"{view.rounds_done}/{view.rounds} rounds" if view.rounds else f"{view.units_done}/{view.units} units"
        return f"<Job {self.id[:12]} {view.status} {done}>"

    # -- how it stands

    @property
    def view(self) -> JobView:
        """Everything that the driver says of the job, in one record."""
        last = self._last
        if last is None or last.status not in ENDED or last.escrow_wei != "0":  # money comes back after the end
            self._last = last = self._source.view()
        return last

    @property
    def status(self) -> str:
        """preparing, matching, running, settling, done, failed or cancelled."""
        return self.view.status

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value under each name."""
        return dict(self.view.metrics)

    @property
    def cost(self) -> str:
        """What it has cost so far, audits included, like ``1.25 MESH``."""
        return amounts.show(self.cost_wei)

    @property
    def cost_wei(self) -> int:
        return int(self.view.cost_wei)

    @property
    def receipts(self) -> Rows[ReceiptView]:
        """One row a unit that a worker signed for. A list; printing it counts them."""
        return Rows("receipt", self._source.receipts())

    @property
    def audits(self) -> Rows[AuditView]:
        """One row a recomputation that was ordered. A list; printing it counts them by their results."""
        return Rows("audit", self._source.audits())

    @property
    def checks(self) -> Any:
        """Which checks held, and which could not be made (`Checks`; printing it gives a line each)."""
        from tallymesh.client.report import checks

        return checks(self.view, self._source.audits(), self._source.backend)

    @property
    def problems(self) -> list[Problem]:
        """What is in the job's way, or was: codes for programs, sentences for people."""
        return self._source.why()

    def why(self) -> list[str]:
        """Why the job is where it is, in sentences; once it has ended, what it cost and how it was checked too."""
        found = [f"{problem.sentence} {problem.remedy}".strip() for problem in self.problems]
        view = self.view
        if view.status in ENDED:
            from tallymesh.client.report import outcome

            found += outcome(view, self._source.audits(), self._source.backend)
        return found

    def report(self) -> str:
        """The whole story in Markdown: outcome, checks, workers, cost."""
        from tallymesh.client.report import report

        return report(self.view, self.checks)

    # -- what comes out of it

    def events(self, after: int = 0, *, follow: bool = True) -> Iterator[EventView]:
        """Every event (docs/API.md), then each as it happens, until the job ends."""
        return self._source.events(after, follow=follow)

    def stream(self) -> Iterator[Any]:
        """Results as they come: `UnitOutput`s of a map, `Round`s of a training. Raises where the job failed. Where
        none comes, standard error says why after a few seconds."""
        mapping = self.view.kind == "map"
        seen: dict[int, str] = {}
        try:
            with self.reasons():
                for event in self._source.events():
                    if mapping and event.kind == "unit":
                        unit = UnitOutput(event.data, self._source.blob)
                        seen[unit.index] = unit.blob
                        yield unit
                    elif not mapping and event.kind == "round":
                        yield Round(int(event.data["round"]), dict(event.data.get("metrics", {})))
        except KeyboardInterrupt:
            if self._source.outlives:
                self._detach()
            raise
        self._check_ended_well()
        if mapping:  # a node keeps the newest events only, and a job may have more units than that
            for index, blob in enumerate(self._source.results().outputs):
                if seen.get(index) != blob:
                    yield UnitOutput({"index": index, "output": blob}, self._source.blob)

    @edge
    def results(self) -> list[Any]:
        """Waits, then the outputs of a map in input order."""
        if self.view.kind != "map":
            raise CallerError("no_results", "A training has no list of results.", remedy="Use job.result.")
        self.wait()
        return [values.decode(self._source.blob(name)) for name in self._source.results().outputs]

    @property
    @edge
    def result(self) -> Result:
        """Waits, then the trained model."""
        if self.view.kind == "map":
            raise CallerError("no_model", "A map makes no model.", remedy="Use job.results().")
        if self._result is None:
            self.wait()
            self._result = Result(self._source, self.view)
        return self._result

    def logs(self, *, follow: bool = False) -> Iterator[LogLine]:
        """What the program printed, over all peers, in the order of arrival."""
        for event in self._source.events(follow=follow):
            if event.kind == "log":
                data = event.data
                yield LogLine(
                    at=event.at,
                    text=str(data.get("line", "")),
                    account=str(data.get("account", "")),
                    round=int(data.get("round", 0)),
                    index=int(data.get("index", 0)),
                )

    # -- waiting and ending

    def reasons(self) -> AbstractContextManager[None]:
        """``with job.reasons():`` while it waits, standard error says why, as `wait` and `stream` do."""
        return waiting.reasons(self._source)

    @edge
    def wait(self, *, progress: bool | None = None) -> Job:
        """Block until the job has ended; raise where it failed or was cancelled. Standard error shows progress (a bar
        on a terminal, a line per change elsewhere) and why the job waits, where it does; nothing with
        `progress=False`. Ctrl-C asks whether to detach or to cancel; a second one cancels and refunds."""
        while True:
            try:
                self._follow(progress)
                break
            except KeyboardInterrupt:
                self._interrupted()
        self._check_ended_well()
        return self

    def __await__(self) -> Generator[Any, Any, Job]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> Job:
        if self.view.status not in ENDED:
            with self.reasons():
                await self._source.ended()
        self._check_ended_well()
        return self

    def cancel(self) -> None:
        """End the job: what was verified is paid, the rest comes back. Idempotent; returns once that is under way."""
        self._source.cancel()

    def _follow(self, progress: bool | None) -> None:
        view = self.view
        if view.status in ENDED:
            return
        if progress is False:
            for _ in self._source.events():
                pass
            return
        show = showing.watch(view)
        try:
            with waiting.reasons(self._source, show.say):
                for event in self._source.events():
                    show.show(event)
        finally:
            show.close()

    def _interrupted(self) -> None:
        """Ctrl-C while waiting. Returns where waiting goes on, be it for the refund."""
        if not self._source.outlives:
            self.cancel()
            raise KeyboardInterrupt from None
        if not sys.stdin.isatty():
            self._detach()
        try:
            answer = input(
                f"\nJob {self.id[:12]}: [d]etach (it goes on), [c]ancel and refund, or Enter to wait on? "
            ).strip()
        except EOFError:
            answer = "d"
        except KeyboardInterrupt:
            answer = "c"
        if answer.lower().startswith("d"):
            self._detach()
        if answer.lower().startswith("c"):
            self.cancel()
            print("\ncancelling: what was verified is paid, the rest comes back", file=sys.stderr)

    def _detach(self) -> NoReturn:
        short = self.id[:12]
        print(
            f"\ndetached: the job goes on. Follow it with 'tallymesh logs -f {short}' or "
            f"tallymesh.attach({self.id!r}); 'tallymesh stop {short}' cancels it.",
            file=sys.stderr,
        )
        raise KeyboardInterrupt from None

    def _check_ended_well(self) -> None:
        view = self.view
        if view.status == "done":
            return
        if view.status == "cancelled":
            back = max(0, int(view.budget_wei) - int(view.cost_wei))
            cost, rest = amounts.show(int(view.cost_wei)), amounts.show(back)
            # While it is settled, units that were verified before the end are still counted: these are no last figures.
            said = (
                f"it cost {cost}, {rest} comes back"
                if view.escrow_wei == "0"
                else (f"so far it cost {cost}, up to {rest} comes back")
            )
            raise CallerError("cancelled", f"Job {self.id[:12]} was cancelled: {said}.")
        if view.status == "failed":
            raise error_of(view.problem or Problem(code="failed", sentence=f"Job {self.id[:12]} failed."))
        raise LocalError("still_running", f"Job {self.id[:12]} is {view.status}, and its events have ended.")


def error_of(problem: Problem) -> TallymeshError:
    """The error to raise for a job's problem, with the program's own traceback where it has one."""
    text = problem.sentence + (f"\n{problem.traceback.rstrip()}\n" if problem.traceback else "")
    kind = CallerError if problem.code in _CALLERS else RemoteError
    outside = problem.code == "program" and problem.sentence.partition(":")[0].rpartition(".")[2] in _OUTSIDE
    return kind(problem.code, text, remedy=problem.remedy or (_OUTSIDE_REMEDY if outside else ""))
