"""A trained model back from its checkpoint: `job.result.load()`."""

from __future__ import annotations

from typing import Any

import torch

from tallymesh import program
from tallymesh.errors import CallerError
from tallymesh_learning import options, tensors, training
from tallymesh_learning.runtime.work import UnitFailure


def load_model(archive: bytes, config: bytes, checkpoint: bytes) -> torch.nn.Module:
    """The module that the training stage's `config` names, with the weights of `checkpoint`, in evaluation mode.

    Runs the program's source in this interpreter: meant for programs of one's own. CallerError where the three do not
    belong together.
    """
    given = options.decode(config)
    state = torch.get_rng_state()
    try:
        with program.importable(program.unpack(archive)):
            net = training.build_model(program.resolve(given.model), given.seed)
        training.load_model(net, tensors.decode(checkpoint))
    except (UnitFailure, tensors.BadTensors) as error:
        raise CallerError("bad_checkpoint", f"The model cannot be loaded: {error}") from None
    finally:
        torch.set_rng_state(state)
    return net.eval()


def model_sha(checkpoint: bytes) -> str:
    """What names a trained model: the content id of its checkpoint, in hex."""
    from tallymesh.ids import blob_id

    return blob_id(checkpoint).hex()


def weights(checkpoint: bytes) -> dict[str, Any]:
    """The model's state dict, without what else the checkpoint holds."""
    found = tensors.decode(checkpoint)
    return {
        name.removeprefix(training.MODEL): tensor for name, tensor in found.items() if name.startswith(training.MODEL)
    }
