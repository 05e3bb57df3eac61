"""The trained model, as a job's result: its hash, its metrics, its card, and the module itself. torch is imported only
by `load`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallymesh import program, units
from tallymesh.api import JobView
from tallymesh.client.source import Source
from tallymesh.errors import LocalError

if TYPE_CHECKING:
    import torch


class Result:
    """What a training job made. `model_sha` names the final checkpoint by its content: the same job gives the same
    one, on whichever machines it ran. Where `approximate` is True (``batched=True``) it names these bytes and no
    more: another run may differ by rounding."""

    def __init__(self, source: Source, view: JobView) -> None:
        self.model_sha = source.results().checkpoint
        self.metrics = dict(view.metrics)
        self.approximate = view.approximate
        self.job_id = view.id
        self._source = source
        self._view = view

    def __repr__(self) -> str:
        about = " approximate" if self.approximate else ""
        return f"<Result {self.model_sha[:12]}…{about} {self.metrics}>"

    @property
    def card(self) -> str:
        """The model card, in Markdown: what it is, how it was made, what was checked."""
        from tallymesh.client.report import card

        return card(self._view, self._spec(), self.model_sha, self._source.audits())

    def checkpoint(self) -> bytes:
        """The final state's bytes: safetensors with names ``model.…``, ``optimizer.…``, ``step``, …"""
        return self._source.blob(self.model_sha)

    def load(self) -> torch.nn.Module:
        """The model with its trained weights, in evaluation mode: made by the model function in the job's own program,
        which runs in this interpreter, with the weights of the final checkpoint put in."""
        try:
            import torch

            from tallymesh_learning import options, tensors, training
        except ImportError:
            raise LocalError(
                "no_torch", "Loading a model needs torch.", remedy="pip install 'tallymesh[learning]'"
            ) from None
        spec = self._spec()
        given = options.decode(spec.stages[0].config)
        state = tensors.decode(self.checkpoint())
        with torch.random.fork_rng(), program.importable(program.unpack(self._source.blob(spec.program.hex()))):
            net = program.resolve(given.model)()  # its weights are replaced, so nothing has to be seeded
        training.load_model(net, state)
        trained: torch.nn.Module = net.eval()
        return trained

    def _spec(self) -> units.JobSpec:
        return units.decode_spec(self._source.blob(self._view.spec))
