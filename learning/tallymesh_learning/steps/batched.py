"""A whole federated job as one computation, for simulation on the submitter's own machine: approximate, and no unit.

Rounds differ from those of units by rounding alone (cohort.py). In the first one a client is computed by the loop, too,
and a difference over the tolerance ends the job: what the user's code draws or keeps outside of torch shows there.
A node's runner does not know this step: what others recompute has to be the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tallymesh.errors import TallymeshError
from tallymesh.plan import derive_seed, participants
from tallymesh.units import JobSpec, decode_spec
from tallymesh_learning import cohort, data, options, tensors, training
from tallymesh_learning.cohort import Cohort, Stacks
from tallymesh_learning.federated import ServerAggregator, ServerContext, Update, average
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, UnitFailure, Work
from tallymesh_learning.steps import common, evaluate, replaced
from tallymesh_learning.steps.aggregate import MEMORY


def run(work: Work) -> Result:
    """Inputs: ``spec`` (the job's template), ``state``, and the shards and held-out data that it names. Output: the
    last state; metrics: those of the held-out data. Emits ``["round", {"round", "units", "metrics"}]``."""
    with work.timed("load"):
        spec, config, aggregation = _template(work)
        state = training.decode_state(work.input("state"), "state")
        shards = [_shard(work, blob) for blob in spec.inputs]
        held_out = _shard(work, spec.test) if any(spec.test) else None
    with work.timed("import"):
        loss = common.resolve(config.loss)
        prepare = common.resolve(config.prepare) if config.prepare else None
        kind = replaced.find(aggregation.aggregator, ServerAggregator)
        net = training.build_model(common.resolve(config.model), config.seed)
    metrics: dict[str, float] = {}
    with work.timed("compute"):
        training.load_model(net, state)
        together = Cohort(net, config.local, loss, shards, prepare=prepare, limit=config.steps)
        for number in range(spec.rounds):
            training.load_model(net, state)
            chosen = participants(spec, number)
            seeds = [derive_seed(spec.seed, spec.stages[0].name, number, index) for index in chosen]
            if not number:
                _check(together, config, loss, prepare, shards, chosen, seeds)
            state = _round(together, kind, state, shards, chosen, seeds, number, spec.seed)
            if held_out is not None:
                training.load_model(net, state)
                metrics = evaluate.measure(net, loss, held_out, options.Config(model=config.model).batch, config.seed)
            work.emit("round", {"round": number + 1, "units": len(chosen) + 1, "metrics": metrics})
    with work.timed("save"):
        return Result(training.encode_state(state), metrics)


def _template(work: Work) -> tuple[JobSpec, options.Config, options.Aggregation]:
    try:
        spec = decode_spec(work.input("spec"))
        return spec, options.decode(spec.stages[0].config), options.decode_aggregation(spec.stages[1].config)
    except (TallymeshError, ValueError, IndexError) as error:
        raise UnitFailure("inputs", f"The template cannot be read: {error}") from None


def _shard(work: Work, blob: bytes) -> data.Shard:
    try:
        return data.decode(work.blob(blob))
    except tensors.BadTensors as error:
        raise UnitFailure("inputs", f"The data cannot be read: {error}") from None


def _round(
    together: Cohort,
    kind: type[ServerAggregator],
    state: tensors.Tensors,
    shards: Sequence[data.Shard],
    chosen: Sequence[int],
    seeds: Sequence[int],
    number: int,
    seed: int,
) -> dict[str, torch.Tensor]:
    """The next state."""
    # Equal numbers of examples side by side: their batches have the same sizes all the way.
    rows = sorted(zip(chosen, seeds, strict=True), key=lambda row: (shards[row[0]].examples, row[0]))
    parts = [rows[start : start + together.together] for start in range(0, len(rows), together.together)]
    wanted = {name: tensor for name, tensor in state.items() if name.startswith(training.MODEL)}
    memory: dict[str, torch.Tensor] = {}
    if kind is ServerAggregator:
        means, counts = [], []
        for part in parts:
            examples = [shards[index].examples for index, _ in part]
            means.append(_mean(_train(together, part), examples))
            counts.append(sum(examples))
        after = {training.MODEL + name: average([mean[name] for mean in means], counts) for name in means[0]}
        after = {name: tensor.to(wanted[name].dtype) for name, tensor in after.items()}
    else:
        made: dict[int, Update] = {}
        for part in parts:
            stacks = _train(together, part)
            for place, (index, _) in enumerate(part):
                made[index] = Update({name: each[place] for name, each in stacks.items()}, shards[index].examples)
        own = derive_seed(seed, "aggregate", number, 0)
        before = {name.removeprefix(training.MODEL): tensor for name, tensor in wanted.items()}
        kept = {name.removeprefix(MEMORY): each for name, each in state.items() if name.startswith(MEMORY)}
        ctx = ServerContext(round=number + 1, seed=own, weights=before, memory=kept)
        numeric.reseed(own, "aggregate")
        returned = kind().aggregate([made[index] for index in sorted(made)], ctx)
        after, memory = replaced.state(kind, returned, wanted, ctx.memory)
    infinite = tensors.first_not_finite(after)
    if infinite:
        raise UnitFailure("program", f"{infinite} holds NaN or infinity: a lower learning rate may help.")
    more = {MEMORY + name: tensor for name, tensor in memory.items()}
    return {**after, **more, training.STEP: torch.tensor(number + 1, dtype=torch.int64)}


def _train(together: Cohort, part: Sequence[tuple[int, int]]) -> Stacks:
    return together.train([index for index, _ in part], [seed for _, seed in part])


def _mean(stacks: Stacks, examples: Sequence[int]) -> dict[str, torch.Tensor]:
    """Of each tensor, weighted; floating ones in float64."""
    weights = torch.tensor(examples, dtype=torch.float64) / sum(examples)
    return {
        name: torch.tensordot(weights, stack.double(), 1)
        if stack.is_floating_point()
        else average(list(stack), examples)
        for name, stack in stacks.items()
    }


def _check(
    together: Cohort,
    config: options.Config,
    loss: training.Loss,
    prepare: training.Prepare | None,
    shards: Sequence[data.Shard],
    chosen: Sequence[int],
    seeds: Sequence[int],
) -> None:
    """One client by the loop: the first one drawn, beside another in the same computation."""
    pair = slice(0, 2)
    stacks = together.train(chosen[pair], seeds[pair])
    net = training.build_model(common.resolve(config.model), config.seed)
    net.load_state_dict(together.net.state_dict())
    shard = shards[chosen[0]]
    trainer = training.Trainer(net, config.local, loss, shard, seed=seeds[0], prepare=prepare)
    total = config.local.epochs * trainer.steps_per_epoch
    for _ in trainer.run(min(total, config.steps) if config.steps else total, total):
        pass
    off = cohort.difference({name: stack[0] for name, stack in stacks.items()}, net.state_dict())
    if not off <= cohort.TOLERANCE:
        raise UnitFailure(
            "program",
            f"Clients cannot be computed together: one of them came out {off:.1e} away from the loop, and "
            f"{cohort.TOLERANCE:.0e} is rounding. A step may draw numbers outside of torch, or keep something from one "
            f"call to the next: {cohort.REMEDY}.",
        )
