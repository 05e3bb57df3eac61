"""What gpu_check.py runs in a sandbox that is shown one GPU: a matmul and copy test, and a training unit from a fixed
seed. Prints one JSON object; exits with a sentence where it is shown no GPU, or more than one."""

from __future__ import annotations

import hashlib
import json
import sys
import time

SIZE = 4096  # of the matrices: 64 MiB each, large enough for any card to be busy
ROUNDS = 20
COPY_BYTES = 256 << 20
STEPS = 20


def main() -> None:
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU: it is built for CPUs only, or the driver does not answer.")
    if torch.cuda.device_count() != 1:
        sys.exit(f"One GPU was leased and {torch.cuda.device_count()} are seen.")
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    a = torch.full((SIZE, SIZE), 0.5, device="cuda")
    a @ a
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(ROUNDS):
        a @ a
    torch.cuda.synchronize()
    tflops = 2 * SIZE**3 * ROUNDS / (time.perf_counter() - began) / 1e12

    host = torch.zeros(COPY_BYTES, dtype=torch.uint8).pin_memory()
    there = host.to("cuda")
    speeds = []
    for source, target in ((host, there), (there, host)):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(ROUNDS):
            target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        speeds.append(COPY_BYTES * ROUNDS / (time.perf_counter() - began) / 2**30)

    torch.manual_seed(0)  # on the CPU, so that every card starts from the same bytes
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    inputs, labels = torch.randn(STEPS, 32, 64), torch.randint(0, 10, (STEPS, 32))
    model, inputs, labels = model.to("cuda"), inputs.to("cuda"), labels.to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[step]), labels[step]).backward()
        optimizer.step()
    state = hashlib.blake2b(digest_size=32)
    for name, tensor in sorted(model.state_dict().items()):
        state.update(name.encode() + tensor.cpu().numpy().tobytes())
    print(
        json.dumps(
            {
                "name": torch.cuda.get_device_name(0),
                "tflops": tflops,
                "to_gib_s": speeds[0],
                "from_gib_s": speeds[1],
                "state": state.hexdigest(),
            }
        )
    )


if __name__ == "__main__":
    main()
