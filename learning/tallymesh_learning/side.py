"""Units that stand beside a job's own: what the payer's node runs in its own sandbox and nobody is paid for.

They follow from the template alone, so every payer's node builds the same ones. This module imports no torch.
"""

from __future__ import annotations

import msgspec

from tallymesh.ids import ZERO32, BlobId
from tallymesh.plan import derive_seed
from tallymesh.units import Input, JobSpec, Unit
from tallymesh_learning import options


def initialise(program: bytes, profile: bytes, model: str, seed: int, packages: tuple[Input, ...] = ()) -> Unit:
    """Checkpoint 0 of the model function at `model` (``module:qualname``), with the job's `packages`."""
    config = options.encode(options.Config(model=model, seed=seed))
    return Unit(program, "tallymesh:initialise", packages, config, derive_seed(seed, "initialise"), profile)


def evaluate(spec: JobSpec, state: BlobId, data: BlobId | None = None) -> Unit:
    """Metrics of the checkpoint `state` on `data`, by default the template's held-out data (ValueError where it has
    none). The output is a value: {"loss", "examples", maybe "accuracy"}; so are the metrics."""
    data = data or BlobId(spec.test)
    if spec.kind == "map" or data == ZERO32:
        raise ValueError("this job has no held-out data")
    inputs = (Input("state", state), Input("data", data), *spec.shared)
    return _beside(spec, "evaluate", inputs)


def loss_check(spec: JobSpec, unit: Unit, end: BlobId) -> Unit:
    """Form, finiteness and loss of what a unit of `spec` (a segment or a client) returned. The metrics are
    ``loss_before`` and ``loss_after`` on one batch of the unit's data; failure ``form`` refuses the unit."""
    inputs = (Input("state", unit.input("state")), Input("end", end), Input("data", unit.input("data")), *spec.shared)
    return _beside(spec, "loss_check", inputs, unit.seed, options.decode(spec.stages[0].config))


def batched(spec: JobSpec, template: BlobId) -> Unit:
    """The whole job as one computation (steps/batched.py); `template` is the blob of `spec`."""
    named = [("spec", template), ("state", spec.initial), *((f"data/{i}", blob) for i, blob in enumerate(spec.inputs))]
    if any(spec.test):
        named.append(("test", spec.test))
    inputs = (*(Input(name, blob) for name, blob in named), *spec.shared)
    return Unit(spec.program, "tallymesh:batched", inputs, b"{}", spec.seed, spec.profile)


def _beside(
    spec: JobSpec, step: str, inputs: tuple[Input, ...], seed: int | None = None, given: options.Config | None = None
) -> Unit:
    """Without `given` how the model is trained is left out: the same measurement has the same id."""
    stage = options.decode(spec.stages[0].config)
    config = options.encode(
        given or msgspec.structs.replace(stage, local=options.Local(), steps=0, total=0, prepare="", trainer="")
    )
    derived = derive_seed(spec.seed if seed is None else seed, step)
    return Unit(spec.program, f"tallymesh:{step}", inputs, config, derived, spec.profile)
