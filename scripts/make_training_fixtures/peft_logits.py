#!/usr/bin/env python3
"""Write what PEFT computes with adapters that we wrote; `pytest -m reference` runs it.

    reference/bin/python scripts/make_training_fixtures/peft_logits.py MODEL ADAPTER [MODEL ADAPTER ...]

MODEL is the name of a case of tests/fixtures/parity, ADAPTER a folder. `peft_logits.npy` in that folder will hold the
logits of the ids of `adapters.inputs`; what PEFT complained of is printed behind the folder's name. Needs torch,
transformers and peft, as `adapters.py` beside it.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peft import PeftModel  # noqa: E402

from scripts.make_training_fixtures.adapters import inputs, load  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    for model, adapter in zip(sys.argv[1::2], sys.argv[2::2]):
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(load(model, Path(folder) / "base"), adapter).eval()
            np.save(Path(adapter) / "peft_logits.npy", adapted(input_ids=inputs()[0]).logits.numpy())
        print(adapter, *{str(one.message) for one in told if "adapter keys" in str(one.message)})


if __name__ == "__main__":
    main()
