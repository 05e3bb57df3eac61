"""The half of the numeric profile that is set after torch is there: flags, and the seeds of a step."""

from __future__ import annotations

import random

import numpy
import torch

from tallymesh.plan import derive_seed
from tallymesh_learning.runtime import compiler, profile


def apply() -> None:
    """Set the profile's flags in this process. Idempotent. The environment must have been there from the start."""
    torch.set_num_threads(profile.THREADS)
    if torch.get_num_interop_threads() != profile.THREADS:
        torch.set_num_interop_threads(profile.THREADS)
    compiler.postpone()
    compiler.deterministic()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(False)
    torch.set_grad_enabled(True)


def reseed(seed: int, *place: int | str) -> None:
    """Every generator that a program may draw from, from hash(seed, place): a segment can start cold at any step."""
    value = derive_seed(seed, *place)
    random.seed(value)
    numpy.random.seed(value & 0xFFFF_FFFF)  # numpy's global generator takes 32 bits
    torch.default_generator.manual_seed(value)
