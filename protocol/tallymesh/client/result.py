"""The trained model, as a job's result: its hash, its metrics, its card, and the module itself. torch is imported only
by `load`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tallymesh import program, units
from tallymesh.api import JobView
from tallymesh.client.source import Source
from tallymesh.errors import CallerError, LocalError

if TYPE_CHECKING:
    import torch


class Result:
    """What a training job made. `model_sha` names the final checkpoint by its content: the same job gives the same
    one, on whichever machines it ran."""

    def __init__(self, source: Source, view: JobView, model: Callable[[], Any] | None = None) -> None:
        self.model_sha = source.results().checkpoint
        self.metrics = dict(view.metrics)
        self.job_id = view.id
        self._source = source
        self._view = view
        self._model = model

    def __repr__(self) -> str:
        return f"<Result {self.model_sha[:12]}… {self.metrics}>"

    @property
    def card(self) -> str:
        """The model card, in Markdown: what it is, how it was made, what was checked."""
        from tallymesh.client.report import card

        return card(self._view, self._spec(), self.model_sha, self._source.audits())

    def checkpoint(self) -> bytes:
        """The final state's bytes: safetensors with names ``model.…``, ``optimizer.…``, ``step``, …"""
        return self._source.blob(self.model_sha)

    def load(self) -> torch.nn.Module:
        """The model with its trained weights, in evaluation mode. It is made by the model function that this program
        passed to `train`, or by the one in the job's own program where it was attached."""
        try:
            from tallymesh_learning import tensors, training
        except ImportError:
            raise LocalError(
                "no_torch", "Loading a model needs torch.", remedy="pip install 'tallymesh[learning]'"
            ) from None
        state = tensors.decode(self.checkpoint())
        if self._model is not None:
            return _filled(self._model(), state, training)
        spec = self._spec()
        entry = str(msgspec.json.decode(spec.stages[0].config)["model"])
        with program.importable(program.unpack(self._source.blob(spec.program.hex()))):
            return _filled(program.resolve(entry)(), state, training)

    def _spec(self) -> units.JobSpec:
        return units.decode_spec(self._source.blob(self._view.spec))


def _filled(net: Any, state: Any, training: Any) -> Any:
    try:
        training.load_model(net, state)
    except Exception as error:
        raise CallerError(
            "wrong_model",
            f"The checkpoint does not fit the model: {error}",
            remedy="The model function must be the one that was trained.",
        ) from error
    return net.eval()
