"""`tallymesh.map` and `tallymesh.train`: prepare a job package, agree on terms, hand it to a driver.

What a program is made of is prepare.py's business (map) and `tallymesh_learning.prepare`'s (training). This module
knows the buyer's terms and the backends.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tallymesh import amounts, api, units, wheels
from tallymesh.client import building, resolving
from tallymesh.client.edge import edge, meant
from tallymesh.client.job import Job
from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import blob_id
from tallymesh.text import sentence
from tallymesh.wheels import Packages

if TYPE_CHECKING:
    from tallymesh.client.local import Warm
    from tallymesh.prepare import PreparedJob

BACKENDS: Final = ("network", "local", "ray")
DEADLINE_S: Final = 24 * 3600
DEADLINE_MAX_S: Final = 1 << 36  # the node takes no more either: times on chain have 40 bits
NAME_MAX: Final = 200  # characters: it is shown in a line


@edge
def map(  # the name is the public one
    function: Callable[..., Any],
    inputs: Iterable[Any],
    *,
    budget: str | None = None,
    max_price: str | None = None,
    require: api.Require | None = None,
    verify: str = "sampled",
    workers: int = 0,
    deadline_s: int = DEADLINE_S,
    newcomers: bool | None = None,
    requires: Sequence[str] = (),
    work: float = 1.0,
    seed: int = 0,
    name: str = "",
    backend: str | None = None,
    **kwargs: Any,
) -> Job:
    """Call `function(item, **kwargs)` for every item of `inputs` on other people's machines; returns at once.

    `inputs` may be a URL that fsspec opens (``"s3://bucket/items.jsonl"``, ``"file:///data/*.txt"``): the values of a
    .json list or of .jsonl lines, else the bytes of each file; it is read here, not by the workers.
    Items, keyword arguments and what the function returns are JSON values, bytes, numpy arrays or torch tensors.
    `budget` is the most that it may ever cost, audits included, as text: ``"2.0"``; `max_price` the most per
    core-hour, as text too (prices are kept in whole wei per second: less than 3600 wei per core-hour is refused).
    `work` is the declared work of one item in reference-seconds. `verify="integrity"` recomputes everything,
    ``"replicate"`` has each item computed by two workers, who are both paid and must agree before it counts;
    `newcomers=True` gives work to accounts without stake, too, and recomputes every unit of theirs.
    `requires` names packages that travel with the job, as pip does: ``["scikit-learn==1.9.*"]``; wheels alone.
    CallerError where the function cannot be shipped, with the line and the remedy.
    """
    _check_no_clash(function)
    _check_arguments(function, kwargs)
    resolving.parse(requires)
    terms = _terms(budget, max_price, require, verify, workers, deadline_s, newcomers, backend)
    _check_name(name)
    from tallymesh import urls
    from tallymesh.prepare import prepare_map

    if isinstance(inputs, str):
        if not urls.is_url(inputs):
            raise CallerError(
                "no_inputs",
                f"inputs= is the text {inputs!r:.60}, which would be its letters.",
                remedy='Pass a list, or a URL: "file:///data/*.txt", "s3://bucket/items.jsonl".',
            )
        inputs = urls.items(inputs)
    prepared = prepare_map(
        function,
        inputs,
        kwargs,
        profile=_profile(_backend(backend), gpu=_on_gpus(terms, backend)),
        seed=seed,
        work=work,
        name=name,
        packages=_packages(requires, _backend(backend)),
    )
    return _submit(prepared, terms, backend)


@edge
def train(
    model: Callable[[], Any],
    loss: Callable[..., Any],
    data: Any,
    *,
    test: Any = None,
    rounds: int = 10,
    clients: int = 10,
    per_round: int = 0,
    partition: str = "iid",
    algorithm: str = "fedavg",
    segments: int = 20,
    local: Mapping[str, Any] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    trainer: type[Any] | None = None,
    aggregator: type[Any] | None = None,
    work: float | None = None,
    seed: int = 0,
    budget: str | None = None,
    max_price: str | None = None,
    require: api.Require | None = None,
    verify: str = "sampled",
    workers: int = 0,
    deadline_s: int = DEADLINE_S,
    newcomers: bool | None = None,
    requires: Sequence[str] = (),
    name: str = "",
    backend: str | None = None,
    batched: bool = False,
) -> Job:
    """Train `model()` with `loss(net, batch)` on `data`, a map-style Dataset; returns at once.

    ``algorithm="fedavg"``: the data is split into `clients` shards (`partition`: ``"iid"`` or ``"dirichlet:0.5"``) and
    trained in `rounds`, by all of them or by `per_round` drawn for each; ``"sequential"``: one run over all data in
    `segments`, any of which can be checked and continued elsewhere. `local` is the work of a client: ``dict(epochs=1,
    batch=32, optimizer="sgd", lr=0.1)``. `prepare(batch)` changes each batch that is trained on (random transforms:
    they follow the unit's seed) and none that is measured on. `test` is held-out data for the metrics of each round.
    `trainer`, a subclass of `tallymesh_learning.ClientTrainer`, replaces what a client does in a round, `aggregator`,
    one of `tallymesh_learning.ServerAggregator`, what is made of all their updates; both are checked like any unit.
    `budget`, `max_price`, `newcomers` and `requires` are as in `map`. `work` declares the reference-seconds of one
    unit; without it one is timed here first. The same arguments give the same `model_sha` on any backend. CallerError
    where model, loss or data cannot work: they are tried before anything is sent.

    `batched=True`, with ``backend="local"`` only, computes all clients of a round together (SGD; several times as
    fast): weights differ from the loop's by rounding, up to 1e-5 relative in a round (looked at in the first round of
    each run), the result is marked `approximate`, and its hash promises nothing.
    """
    _check_batched(batched, backend)
    resolving.parse(requires)
    terms = _terms(budget, max_price, require, verify, workers, deadline_s, newcomers, backend)
    _check_name(name)
    try:
        from tallymesh_learning.prepare import prepare_training
    except ImportError:
        raise LocalError(
            "no_torch", "Training needs the learning package and torch.", remedy="pip install 'tallymesh[learning]'"
        ) from None
    from tallymesh.client import local as here

    with here.warmed(_backend(backend) == "local" and building.folder() is None) as warm:
        prepared = prepare_training(
            model,
            loss,
            data,
            test,
            rounds=rounds,
            clients=clients,
            partition=partition,
            algorithm=algorithm,
            segments=segments,
            per_round=per_round,
            local=local,
            prepare=prepare,
            trainer=trainer,
            aggregator=aggregator,
            batched=batched,
            seed=seed,
            work=work,
            name=name,
            pool=warm,
            packages=_packages(requires, "local"),  # its units are tried here, under the profile of this installation
            gpu=_on_gpus(terms, backend),
        )
        return _submit(prepared, terms, backend, batched=batched, warm=warm)


@edge
def attach(job_id: str) -> Job:
    """A job that was submitted before, by this program or another: its id, or enough of its beginning."""
    from tallymesh.client.session import current
    from tallymesh.client.source import NetworkSource

    session = current()
    if len(job_id) < 64:
        found = [job.id for job in session.get("/v1/jobs", list[api.JobView]) if job_id and job.id.startswith(job_id)]
        if len(found) != 1:
            what = f"{len(found)} jobs begin" if found else "No job begins"
            raise CallerError("no_job", f"{what} with {job_id!r}.", remedy="See 'tallymesh ls'.")
        job_id = found[0]
    job = Job(job_id, NetworkSource(session, job_id))
    _ = job.view  # an unknown id is refused here and not later
    return job


def _on_gpus(terms: api.Terms, backend: str | None) -> bool:
    """Whether its units compute on GPUs: on the network (a package that is built is for it), and nowhere else."""
    return terms.require.gpu > 0 and (_backend(backend) == "network" or building.folder() is not None)


def _profile(backend: str, *, gpu: bool) -> bytes:
    """Under which the units of a map run: that of this installation, or of the node, which has torch where the
    client may have none."""
    if backend != "network":
        try:
            from tallymesh_learning.runtime.profile import CPU, GPU, profile_hash
        except ImportError:
            raise LocalError(
                "no_torch",
                f"The {backend} backend needs the learning package.",
                remedy="pip install 'tallymesh[learning]'",
            ) from None
        return profile_hash(GPU if gpu else CPU)
    from tallymesh.client.session import current

    node = current().get("/v1/node", api.NodeView)
    stated = node.gpu_profile if gpu else node.numeric_profile
    if not stated:
        raise LocalError("no_profile", "The node does not say under which numeric profile it computes.")
    return bytes.fromhex(stated)


def _packages(requires: Sequence[str], backend: str) -> Packages:
    """The wheels that travel with the job, beside the base set of this installation or of the node."""
    if not requires:
        return wheels.NONE
    if backend != "network":
        from tallymesh_learning.runtime.profile import base

        return resolving.resolve(requires, base())
    from tallymesh.client.session import current

    stated = current().get("/v1/node", api.NodeView).base
    if not stated:
        raise LocalError("no_profile", "The node does not say what its sandboxes have.", remedy="Update the node.")
    return resolving.resolve(requires, stated)


def _submit(
    prepared: PreparedJob,
    terms: api.Terms,
    backend: str | None,
    *,
    batched: bool = False,
    warm: Warm | None = None,
) -> Job:
    folder = building.folder()
    if folder is not None:
        building.keep(prepared, terms, folder)
        raise building.Built
    body = units.encode(prepared.spec)
    name = blob_id(body)
    blobs = {**prepared.blobs, name: body}
    chosen = _backend(backend)
    if chosen != "network":
        from tallymesh.client.local import LocalSource

        source = LocalSource(prepared.spec, name, blobs, batched=batched, backend=chosen, warm=warm)
        return Job(source.job_id, source)
    from tallymesh.client.session import current
    from tallymesh.client.source import NetworkSource

    session = current()
    session.upload(blobs)
    request = api.encode(api.SubmitRequest(spec=name.hex(), terms=terms))
    view = session.post("/v1/jobs", request, api.JobView)
    return Job(view.id, NetworkSource(session, view.id))


def _terms(
    budget: str | None,
    max_price: str | None,
    require: api.Require | None,
    verify: str,
    workers: int,
    deadline_s: int,
    newcomers: bool | None,
    backend: str | None,
) -> api.Terms:
    """Checked before anything is prepared: reading a data set and being told afterwards that there is no budget is
    rude."""
    chosen = _backend(backend)
    if budget is None:
        budget = os.environ.get("TALLYMESH_BUDGET") or None
    if budget is None and chosen == "network":
        raise CallerError("no_budget", "The job has no budget.", remedy='Pass budget="2.0", in whole tokens as text.')
    if verify not in api.VERIFY:
        raise CallerError("bad_terms", f"There is no verify={verify!r}.", remedy=f"Use one of {', '.join(api.VERIFY)}.")
    if verify == "replicate" and workers == 1:
        raise CallerError("bad_terms", 'verify="replicate" runs each unit on two workers, and workers= allows for one.')
    if type(workers) is not int or type(deadline_s) is not int or workers < 0 or not 0 < deadline_s <= DEADLINE_MAX_S:
        raise CallerError(
            "bad_terms",
            f"workers and deadline_s are whole positive numbers, not {workers!r:.40} and {deadline_s!r:.40}.",
        )
    if newcomers is None:
        newcomers = os.environ.get("TALLYMESH_NEWCOMERS") == "1"
    if type(newcomers) is not bool:
        raise CallerError("bad_terms", f"newcomers= is True or False, not {newcomers!r:.40}.")
    if require is not None and not isinstance(require, api.Require):
        raise CallerError(
            "bad_terms",
            f"require= is a {type(require).__name__}.",
            remedy="Pass tallymesh.Require(memory_gib=2.0), for example.",
        )
    if require is not None and not all(math.isfinite(each) for each in (require.memory_gib, require.disk_gib)):
        raise CallerError("bad_terms", "Requirements are positive numbers.")
    # Prices are shown per core-hour and kept per reference-second, rounded down: never more than was said.
    price = "" if max_price is None else str(amounts.parse(max_price) // 3600)
    if price == "0":  # in an Order nothing would mean any price
        raise CallerError(
            "bad_amount",
            f"max_price={max_price!r} is less than 3600 wei per core-hour, a wei per second: no price is so low.",
            remedy='Leave it out for any price, or say what a core-hour may cost: max_price="0.05".',
        )
    budget_wei = str(amounts.parse(budget or "0"))
    if chosen == "network":
        from tallymesh.client.discover import find

        find()
    return api.Terms(
        budget_wei=budget_wei,
        max_price_wei=price,
        require=require or api.Require(),
        verify=verify,
        workers_max=workers,
        deadline_s=deadline_s,
        newcomers=newcomers,
    )


def _check_batched(batched: bool, backend: str | None) -> None:
    """Refused before anything is read where it could not be kept."""
    if type(batched) is not bool:
        raise CallerError("bad_batched", f"batched= is True or False, not {batched!r:.40}.")
    if batched and _backend(backend) != "local":
        raise CallerError(
            "bad_batched",
            "batched=True differs from the loop by rounding, and work that others check has to give the same bits.",
            remedy='Leave it out, or compute here: backend="local".',
        )


def _check_name(name: str) -> None:
    """It travels with the job and is shown in one line of many terminals."""
    if not isinstance(name, str) or len(name) > NAME_MAX or sentence(name, NAME_MAX) != name:
        raise CallerError(
            "bad_name", f"name= is a line of text of at most {NAME_MAX} characters.", remedy='name="my job"'
        )


def _backend(backend: str | None) -> str:
    chosen = backend or os.environ.get("TALLYMESH_BACKEND") or "network"
    if chosen not in BACKENDS:
        raise CallerError(
            "bad_backend", f"There is no backend {chosen!r}.", remedy=f"Use one of {', '.join(BACKENDS)}."
        )
    if chosen == "ray" and importlib.util.find_spec("ray") is None:
        raise CallerError(
            "no_ray",
            'backend="ray" needs Ray, which is not installed here.',
            remedy="pip install 'tallymesh[learning,ray]'",
        )
    return "local" if building.folder() else chosen  # a package is made under this installation's own profile


_OURS: Final = frozenset(
    name for name, parameter in inspect.signature(map).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY
)


def _check_no_clash(function: Callable[..., Any]) -> None:
    """A parameter of the user's function under one of our names would silently never be passed."""
    try:
        parameters = list(inspect.signature(function).parameters)[1:]
    except (TypeError, ValueError):
        return  # prepare_map says better what is wrong with it
    clash = sorted(_OURS & set(parameters))
    if clash:
        raise CallerError(
            "reserved_name",
            f"The function's parameter {clash[0]!r} has the name of an option of map().",
            remedy="Rename the parameter, or put it into the items.",
        )


def _check_arguments(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """A call that Python would refuse is refused before it is paid for."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # prepare_map says better what is wrong with it
    try:
        signature.bind(None, **kwargs)
    except TypeError as error:
        name = getattr(function, "__name__", "function")
        plain = inspect.Signature([each.replace(annotation=each.empty) for each in signature.parameters.values()])
        given = "".join(f", {key}=…" for key in kwargs)
        raise CallerError(
            "bad_arguments",
            f"map calls {name}(item{given}), and {name}{plain} does not take that: {error}.",
            remedy=_option_meant(signature, kwargs)
            or "Pass its other arguments to map by name: tallymesh.map(function, inputs, scale=2.0).",
        ) from None


def _option_meant(signature: inspect.Signature, kwargs: Mapping[str, Any]) -> str:
    """Where the function has no such argument, because it misspells one of its own or an option of map's."""
    unknown = [name for name in kwargs if name not in signature.parameters]
    known = [*list(signature.parameters)[1:], *sorted(_OURS)]
    near = [said for name in unknown if (said := meant(name, known, "map")).startswith("Did")]
    return near[0] if near else ""
