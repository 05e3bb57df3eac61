"""Map over images: arrays of several dtypes in nested results, a helper package, a table that the script made."""

import numpy as np
import torch
from kernels import blur

import tallymesh

LOOKUP = np.sqrt(np.arange(256)).astype(np.float16)  # made once here, carried as a value


def describe(image, threshold, labels=("dark", "light")):
    smooth = blur.blur(image)
    return {
        "edges": np.abs(image - smooth) > threshold,
        "looked_up": LOOKUP[image],
        "spectrum": np.abs(np.fft.rfft2(smooth)).astype("float64"),
        "histogram": torch.bincount(torch.from_numpy(image.flatten()).long(), minlength=4).to(torch.int16),
        "label": labels[int(smooth.mean() > 127)],
        "raw": image.tobytes(),
        "none": [None, True, -1, 0.5],
    }


def images():
    for seed in range(3):  # a generator is fine as inputs
        yield np.random.default_rng(seed).integers(0, 256, size=(4, 5 + seed), dtype=np.uint8)


if __name__ == "__main__":
    job = tallymesh.map(describe, images(), threshold=20.0, budget="1")
    for unit in sorted(job.stream(), key=lambda unit: unit.index):
        made = unit.output
        print(unit.index, made["edges"].dtype, made["looked_up"].dtype, made["spectrum"].shape, made["histogram"].dtype)
    here = [describe(image, 20.0) for image in images()]
    same = [
        np.array_equal(there["spectrum"], mine["spectrum"]) for there, mine in zip(job.results(), here, strict=True)
    ]
    print("as here:", all(same), job.results()[0]["label"], job.results()[0]["none"])
