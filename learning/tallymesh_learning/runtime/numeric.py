"""The half of the numeric profile that is set after torch is there: flags, where to compute, the seeds of a step.

Under the `GPU` profile nothing here talks to the card before a unit computes: what CUDA knows does not survive a fork.
"""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch

from tallymesh.plan import derive_seed
from tallymesh_learning.runtime import compiler, profile

_device = torch.device("cpu")


def device() -> torch.device:
    """Where a unit under the applied profile computes."""
    return _device


def apply(kind: str = profile.CPU) -> None:
    """Set the profile's flags in this process. Idempotent. The environment must have been there from the start."""
    global _device
    _device = torch.device("cuda" if kind == profile.GPU else "cpu")
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
    if kind == profile.GPU:
        _apply_gpu()


def _apply_gpu() -> None:
    """As `profile.describe` says: no TF32, no kernels chosen by timing, of attention the one that is written out."""
    backends: Any = torch.backends
    backends.cuda.matmul.allow_tf32 = False
    backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    backends.cudnn.allow_tf32 = False
    backends.cudnn.deterministic = True
    backends.cudnn.benchmark = False
    backends.cuda.enable_flash_sdp(False)
    backends.cuda.enable_mem_efficient_sdp(False)
    backends.cuda.enable_cudnn_sdp(False)
    backends.cuda.enable_math_sdp(True)


def reseed(seed: int, *place: int | str) -> None:
    """Every generator that a program may draw from, from hash(seed, place): a segment can start cold at any step."""
    value = derive_seed(seed, *place)
    random.seed(value)
    numpy.random.seed(value & 0xFFFF_FFFF)  # numpy's global generator takes 32 bits
    torch.default_generator.manual_seed(value)
    if _device.type == "cuda":
        torch.cuda.manual_seed_all(value)  # before CUDA is awake it is only noted
