"""The strict numeric profiles: everything that must be equal before two machines can be expected to give equal bits.

A profile is a set of environment variables that must be there before torch and numpy are imported, flags that are set
afterwards (numeric.py), and the versions of what computes. Its hash is in every unit. Whether two machines of one
profile really agree is measured, by the canary. This module imports neither torch nor numpy.

There are two kinds. `CPU` is every unit's but those of jobs that ask for a GPU. `GPU` names no build of torch but its
release, so that whoever has a build for CPUs can order such a job; which build of CUDA computes, on which card and with
which driver, is in the numeric class.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import lru_cache
from importlib import metadata
from typing import Any, Final

from blake3 import blake3

from tallymesh.errors import LocalError
from tallymesh.units import canonical_json

CPU: Final = "cpu"
GPU: Final = "gpu"
KINDS: Final = (CPU, GPU)

THREADS = 1  # another number of threads gives other bits from the first step

# Kernels are chosen by instruction set: every library is pinned to the AVX2 paths that all x86 servers since 2015
# have, so that AVX-512 machines give the same bits. On other architectures there is one path.
_X86 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's BLAS otherwise picks a kernel for this very processor
}
_COMMON = {
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "OPENBLAS_NUM_THREADS": str(THREADS),
    "OMP_WAIT_POLICY": "passive",  # spinning threads make a loaded machine up to 90 times slower
    "PYTHONHASHSEED": "0",  # the order of a set of texts must not differ between two runs
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "CUDA_VISIBLE_DEVICES": "",  # the strict profile computes on the CPU
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
}
# What CUDA's libraries need to give the same bits twice: one workspace a stream for cuBLAS (NVIDIA, cuBLAS library,
# "Results reproducibility"), no TF32 anywhere, and no kernels that an earlier program left compiled. Which card a
# process sees is no part of the profile (`shown`).
_CUDA = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "NVIDIA_TF32_OVERRIDE": "0",
    "CUDA_CACHE_DISABLE": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
_NUMPY_BEYOND_AVX2 = {  # names of numpy's dispatch targets changed in 2.4
    True: "X86_V4 AVX512_ICL AVX512_SPR",
    False: "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
}


def environment(kind: str = CPU) -> dict[str, str]:
    """Variables that a process must have from its start to compute under the profile."""
    wanted = dict(_COMMON)
    if kind == GPU:
        del wanted["CUDA_VISIBLE_DEVICES"]
        wanted |= _CUDA
    if platform.machine() in ("x86_64", "AMD64"):
        wanted |= _X86
        release = tuple(int(part) for part in version("numpy").split(".")[:2])
        wanted["NPY_DISABLE_CPU_FEATURES"] = _NUMPY_BEYOND_AVX2[release >= (2, 4)]
    return wanted


def shown(uuid: str) -> dict[str, str]:
    """Beside the `GPU` profile: that of all cards a process uses this one, whatever else its driver lists."""
    return {"CUDA_VISIBLE_DEVICES": uuid, "NVIDIA_VISIBLE_DEVICES": uuid}


def missing_environment(kind: str = CPU) -> list[str]:
    """Variables of the profile that this process does not have: empty where it computes under the profile."""
    return sorted(name for name, value in environment(kind).items() if os.environ.get(name) != value)


def describe(kind: str = CPU) -> dict[str, Any]:
    """What the hash covers, for people and for `profile_hash`."""
    if kind == GPU:
        return _describe_gpu()
    return {
        "name": "strict",
        "version": 1,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "machine": platform.machine(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "threads": THREADS,
        "environment": environment(),
        "dtype": {"default": "float32", "matmul": "highest", "autocast": False, "flush_denormal": False},
        "deterministic": {"algorithms": True, "fill_uninitialized_memory": True, "reseed": "every step"},
    }


def _describe_gpu() -> dict[str, Any]:
    cpu = describe(CPU)
    return {
        **cpu,
        "name": "strict-gpu",
        "torch": cpu["torch"].partition("+")[0],
        "environment": environment(GPU),
        "dtype": {**cpu["dtype"], "tf32": False, "reduced_precision_reduction": False},
        "deterministic": {**cpu["deterministic"], "cudnn_benchmark": False, "attention": "math"},
    }


def base() -> dict[str, str]:
    """What every unit of this profile finds, for whoever resolves packages beside it. safetensors is not in the hash:
    what it reads and writes does not depend on its version."""
    fixed = {name: version(name) for name in ("numpy", "torch", "safetensors")}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "machine": platform.machine(), **fixed}


@lru_cache(maxsize=len(KINDS))
def profile_hash(kind: str = CPU) -> bytes:
    """32 bytes that name the profile of this installation. LocalError where torch or numpy is not installed."""
    return blake3(b"tallymesh.profile/" + canonical_json(describe(kind))).digest()


def kind_of(named: bytes) -> str:
    """Which of this installation's profiles has this hash; "" for none."""
    return next((kind for kind in KINDS if profile_hash(kind) == named), "")


@lru_cache(maxsize=8)
def version(package: str) -> str:
    """The installed build, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise LocalError(
            f"no_{package}", f"{package} is not installed here.", remedy="pip install 'tallymesh[learning]'"
        ) from None
