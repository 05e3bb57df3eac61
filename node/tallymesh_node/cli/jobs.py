"""`ls`, `logs`, `why`, `stop`, `result`, `offers`: looking into jobs through the node's API."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.errors import CallerError, TallymeshError
from tallymesh_node.cli.output import Json, JsonLines, ago, facts, say_json, table

if TYPE_CHECKING:
    from tallymesh.api import EventView, JobView, NodeView, OfferView
    from tallymesh.client.job import Job

# The owner's word, or the account is another node's: then there is no offer, and that is why.
UNLENT: Final = frozenset({"paused", "off_hours", "in_use", "bad_orders", "one_wallet"})
ENDED: Final = ("done", "failed", "cancelled")
_STANDS: Final = {"failed": "has", "cancelled": "was"}
SHORT: Final = 12  # hex digits of an id that a table shows, and that every command takes


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """For the shell: ids of this node's jobs that begin so, with what they are. Nothing where there is no node."""
    try:
        found = _views()
    except TallymeshError:
        return []  # an error message in the middle of a line that somebody types helps nobody
    return [
        (view.id[:SHORT], f"{view.name or view.kind}, {view.status}")
        for view in found
        if view.id.startswith(incomplete)
    ]


JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, or enough of its beginning.", autocompletion=complete_job)
]
MaybeJobId = Annotated[
    str | None,
    typer.Argument(metavar="JOB", help="A job's id; the newest job without one.", autocompletion=complete_job),
]


def ls(json_: Json = False) -> None:
    """All jobs of this node, newest first.

    \b
    Examples:
      tallymesh ls
      tallymesh ls --json | jq '.[0].metrics'
    """
    from tallymesh import amounts

    views = _views()
    if json_:
        say_json(views)
        return
    rows = [
        (
            view.id[:SHORT],
            view.name or view.kind,
            view.status,
            _done(view),
            ", ".join(f"{name} {value:.4g}" for name, value in list(view.metrics.items())[:2]),
            amounts.show(int(view.cost_wei)),
            ago(view.created),
        )
        for view in views
    ]
    table(("job", "name", "status", "done", "metrics", "cost", "age"), rows, empty="no jobs yet: tallymesh run PROGRAM")


def logs(
    job: MaybeJobId = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the job ends.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every event, not only what the program printed.")] = False,
    json_: JsonLines = False,
) -> None:
    """What a job's program printed, on all peers, in one stream. With --json one event a line.

    A line begins with the worker that printed it and what it worked on. While a job waits, -f says why on standard
    error.

    \b
    Examples:
      tallymesh logs -f
      tallymesh logs 3fa2c1 --all
    """
    found = _job(job)
    with found.reasons() if follow and not json_ else nullcontext():
        for event in found.events(follow=follow):
            if not all_ and event.kind not in ("log", "warning", "caught", "done"):
                continue
            if json_:
                say_json(event)
            else:
                print(_line(event), flush=True)


def why(
    job: MaybeJobId = None,
    node: Annotated[bool, typer.Option("--node", help="Why does this machine get no work?")] = False,
    json_: Json = False,
) -> None:
    """Why a job waits, failed, or cost what it cost.

    Of one that has ended it says who computed which share of it again. With --node: why this machine gets no work.

    \b
    Examples:
      tallymesh why
      tallymesh why 3fa2c1
      tallymesh why --node
    """
    if node:
        _why_node(json_)
        return
    found = _job(job)
    if json_:
        say_json(_why_json(found))
        return
    view = found.view
    stands = f"{_STANDS.get(view.status, 'is')} {view.status}"
    print(f"job {view.id[:SHORT]} ({view.name or view.kind}) {stands}: {_done(view)}")
    reasons = found.why()
    if not reasons and view.status not in ENDED:
        reasons = ["Nothing is in its way." if view.status != "matching" else "Workers are being asked."]
    for reason in reasons:
        print(f"  {reason}")


def _why_json(found: Job) -> dict[str, Any]:
    """`reasons` are problems; what it cost and how it was checked stand beside them as numbers."""
    view, checks = found.view, found.checks
    return {
        "job": view.id,
        "status": view.status,
        "reasons": [f"{problem.sentence} {problem.remedy}".strip() for problem in found.problems],
        "cost_wei": view.cost_wei,
        "budget_wei": view.budget_wei,
        "escrow_wei": view.escrow_wei,
        "units": view.units_done,
        "redone": view.redone,
        "audits": {
            "match": checks.matched,
            "mismatch": checks.mismatched,
            "unavailable": checks.unavailable,
            "by_payer": checks.by_payer,
        },
    }


def stop(job: JobId, json_: Json = False) -> None:
    """Cancel a job: what was verified is paid, the rest comes back.

    \b
    Examples:
      tallymesh stop 3fa2c1
    """
    found = _job(job)
    before = found.status
    found.cancel()
    if json_:
        say_json(found.view)
    elif before in ENDED:
        print(f"job {found.id[:SHORT]} is {before} already: nothing was left to cancel")
    else:
        print(f"job {found.id[:SHORT]} is {found.status}")


def result(
    job: MaybeJobId = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the checkpoint (safetensors) or the outputs (JSON) here.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="The whole story: outcome, checks, workers, cost.")] = False,
    json_: Json = False,
) -> None:
    """What a job made: a trained model, or a map's outputs.

    Of a model its card is shown, with hash and metrics.

    \b
    Examples:
      tallymesh result
      tallymesh result 3fa2c1 --out model.safetensors
      tallymesh result 3fa2c1 --report
    """
    found = _job(job)
    if report:
        if json_:
            say_json({"job": found.id, "report": found.report()})
        else:
            print(found.report())
        return
    if found.status not in ENDED:
        raise CallerError(
            "not_finished", f"Job {found.id[:SHORT]} is {found.status}.", remedy="Wait: 'tallymesh logs -f'."
        )
    if found.view.kind == "map":
        _map_result(found, out, json_)
    else:
        _model_result(found, out, json_)


def offers(json_: Json = False) -> None:
    """The market as this machine's node knows it.

    \b
    Examples:
      tallymesh offers
      tallymesh offers --json
    """
    from tallymesh import amounts
    from tallymesh.api import OfferView
    from tallymesh.client.session import current

    found = current().get("/v1/offers", list[OfferView])
    if json_:
        say_json(found)
        return
    rows = [
        (
            offer.account,
            str(offer.cores),
            f"{offer.memory_mib / 1024:.1f} GiB",
            offer.gpus or "-",
            f"{offer.cpu_score / 1000:.2f}",
            amounts.show_per_core_hour(int(offer.ask_price_wei)),
            _standing(offer),
        )
        for offer in found
    ]
    head = ("account", "cores", "memory", "GPUs", "speed", "per core-hour", "standing")
    table(head, rows, empty="no offers yet: they arrive within a minute of joining")


def _done(view: JobView) -> str:
    if view.kind != "map":
        return f"{view.rounds_done}/{view.rounds} rounds"
    return f"{view.units_done}/{view.units} units"


def _standing(offer: OfferView) -> str:
    if not offer.stake_known:
        return "waiting for the chain"
    if not offer.staked:
        return "unstaked"
    if offer.provisional:
        return "class being measured"
    return f"class {offer.numeric_class[:8]}" + ("" if offer.class_counts else ", on chain soon")


def _views() -> list[JobView]:
    from tallymesh.api import JobView
    from tallymesh.client.session import current

    return current().get("/v1/jobs", list[JobView])


def _job(job_id: str | None) -> Job:
    from tallymesh.client.submit import attach

    if job_id is None:
        views = _views()
        if not views:
            raise CallerError("no_job", "This node has no jobs.", remedy="Submit one: tallymesh run PROGRAM --budget 5")
        job_id = views[0].id
    return attach(job_id)


def _line(event: EventView) -> str:
    from tallymesh.client.telling import short, tell, unit_name

    words = tell(event.kind, event.data)
    if event.kind == "log":
        return f"{short(str(event.data.get('account', '')))} {unit_name(event.data)} | {words}"
    if event.kind == "done":
        return f"job {words}"
    return f"{event.kind}: {words}" if words else event.kind


def _why_node(as_json: bool) -> None:
    from tallymesh.api import NodeView
    from tallymesh.client.session import current

    view = current().get("/v1/node", NodeView)
    reasons = node_reasons(view)
    if as_json:
        say_json({"node": view.peer_id, "reasons": reasons})
        return
    for reason in reasons or ["nothing is in the way of work: it waits for a job that fits its offer"]:
        print(reason)


def node_reasons(view: NodeView) -> list[str]:
    """Why nobody gives this node work, in sentences, the surest first."""
    from tallymesh_node.cli.contributor import sells_nothing

    reasons = [f"{problem.sentence} {problem.remedy}".strip() for problem in view.problems]
    codes = {problem.code for problem in view.problems}
    if "worker" not in view.roles:
        what = "submits jobs and does" if "submit" in view.roles else "does"
        roles = [*(role for role in ("worker", "audit") if role not in view.roles), *view.roles]
        reasons.append(
            f"This node {what} not work for others: that is what it was started for (roles: {', '.join(view.roles)})."
        )
        reasons.append(
            f"To lend this machine out as well, start it with: tallymesh node start --roles {','.join(roles)} --stake 1"
        )
        return reasons
    if not view.stake_known:
        reasons.append("The chain has not answered yet: it is not known whether the account holds a slot.")
    elif not view.staked and "unstaked" not in codes:
        reasons.append("It holds no slot of stake. Start it with --stake 1.")
    if view.cards == "trying":
        reasons.append("Its cards are being tried; until then nothing is offered.")
    elif view.provisional:
        reasons.append("Its numeric class is being measured; until then it gets only work that no class is needed for.")
    if view.peers == 0:
        reasons.append("It knows no other peer, so nobody has seen its offer. Check the network file's bootstrap.")
    if not view.offer and not codes & UNLENT and not sells_nothing(view):
        reasons.append("It has published no offer yet.")
    return reasons


def _map_result(job: Job, out: Path | None, as_json: bool) -> None:
    outputs = job.results()
    if out is not None:
        from tallymesh_node.cli.output import to_json

        _write(out, to_json(outputs))
        if as_json:
            say_json({"job": job.id, "outputs": len(outputs), "written": str(out)})
        else:
            print(f"{len(outputs)} outputs written to {out}", file=sys.stderr)
    elif as_json:
        say_json(outputs)
    else:
        for value in outputs:
            print(value)


def _write(out: Path, data: bytes) -> None:
    try:
        out.write_bytes(data)
    except OSError as error:
        raise CallerError("not_written", f"{out} cannot be written: {error.strerror}.") from None


def _model_result(job: Job, out: Path | None, as_json: bool) -> None:
    made = job.result
    if out is not None:
        _write(out, made.checkpoint())
    if as_json:
        say_json({"job": job.id, "model_sha": made.model_sha, "metrics": made.metrics, "cost_wei": str(job.cost_wei)})
    elif out is not None:
        facts([("model", made.model_sha), ("written", str(out))])
    else:
        print(made.card)
