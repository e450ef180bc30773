"""What torch's AdamW makes of fixed gradients, for tests/training/loop/test_optim.py.

python scripts/make_training_fixtures/optimizers.py      # in a Python with torch 2.13
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

TARGET = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "training" / "optimizers.npz"
STEPS = 12
CASES = {
    # name: betas, eps, weight decay, learning rates by step
    "qwen": ((0.9, 0.95), 1e-8, 0.1, [1e-2 * (step + 1) / STEPS for step in range(STEPS)]),
    "torch_defaults": ((0.9, 0.999), 1e-8, 0.01, [1e-3] * STEPS),
    "no_decay": ((0.8, 0.99), 1e-6, 0.0, [3e-3] * STEPS),
}


def main() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 7)).astype(np.float32)
    # Sizes of real gradients: some rows a million times smaller than others.
    scale = np.array([1, 1e-2, 1e-4, 1e-6, 1e2], np.float32)[:, None]
    gradients = (rng.normal(size=(STEPS, 5, 7)) * scale).astype(np.float32)
    arrays = {"start": start, "gradients": gradients}
    for name, (betas, eps, decay, rates) in CASES.items():
        weight = torch.nn.Parameter(torch.tensor(start))
        optimizer = torch.optim.AdamW([weight], lr=rates[0], betas=betas, eps=eps, weight_decay=decay, foreach=False)
        after = []
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = rates[step]
            weight.grad = torch.tensor(gradients[step])
            optimizer.step()
            after.append(weight.detach().numpy().copy())
        arrays[f"{name}.weights"] = np.stack(after)
        arrays[f"{name}.settings"] = np.array([*betas, eps, decay])
        arrays[f"{name}.rates"] = np.array(rates)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(f"wrote {TARGET} with torch {torch.__version__}")


if __name__ == "__main__":
    main()
