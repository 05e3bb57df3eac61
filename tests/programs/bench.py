"""Builds units of `programs.training` and runs them in a fork server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from programs import training
from tallymesh import values
from tallymesh.capture import capture
from tallymesh.units import Input, Unit, canonical_json
from tallymesh_learning import options
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import Done, Event, UnitPool

MODULE = "programs.training"


class Bench:
    """Builds and runs units of `programs.training`."""

    def __init__(self, pool: UnitPool) -> None:
        self.pool = pool
        self.events: list[Event] = []
        self._initial: dict[tuple[str, int], bytes] = {}
        names = [name for name in vars(training) if not name.startswith("_")]
        objects = [vars(training)[name] for name in names]
        mine = [obj for obj in objects if getattr(obj, "__module__", "") == MODULE]
        self.program = pool.put(capture(*mine).archive)

    def unit(
        self, entry: str, config: bytes = b"{}", *, seed: int = 1, inputs: Mapping[str, bytes] | None = None
    ) -> Unit:
        """A unit with the blobs in `inputs` (given as bytes) put where it finds them."""
        named = tuple(Input(name, self.pool.put(data)) for name, data in (inputs or {}).items())
        return Unit(self.program, entry, named, config, seed, profile.profile_hash())

    def run(self, unit: Unit, *, probe_key: bytes = b"") -> Done:
        self.events.clear()
        return self.pool.run(unit, probe_key=probe_key, on_event=self.events.append)

    def call(self, function: str, item: Any = None, **changes: Any) -> Any:
        """Run a map unit and return its value."""
        unit = self.unit(f"{MODULE}:{function}", inputs={"item": values.encode(item)})
        return values.decode(self.run(msgspec.structs.replace(unit, **changes)).output)

    def step(
        self, step: str, config: options.Config | None, *, seed: int = 1, probe_key: bytes = b"", **inputs: bytes
    ) -> Done:
        body = options.encode(config) if config is not None else canonical_json({})
        return self.run(self.unit(f"tallymesh:{step}", body, seed=seed, inputs=inputs), probe_key=probe_key)

    def initial(self, model: str, seed: int = 3) -> bytes:
        """Checkpoint 0 of a model."""
        if (model, seed) not in self._initial:
            made = self.step("initialise", options.Config(model=f"{MODULE}:{model}", seed=seed))
            self._initial[model, seed] = made.output
        return self._initial[model, seed]


def config(model: str = "mlp", loss: str = "cross_entropy", **more: Any) -> options.Config:
    local = options.local(more.pop("local", {"batch": 8, "lr": 0.1}))
    return options.Config(model=f"{MODULE}:{model}", loss=f"{MODULE}:{loss}", local=local, **{"seed": 3, **more})
