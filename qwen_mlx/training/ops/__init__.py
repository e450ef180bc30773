"""What a training step computes: losses over large vocabularies, attention within texts, a pass that is recomputed."""

from qwen_mlx import device

device.prepare()  # before anything imports mlx

from qwen_mlx.training.ops.attention import segment_attention  # noqa: E402
from qwen_mlx.training.ops.balance import balance, load_balancing_loss, load_metrics, router_use  # noqa: E402
from qwen_mlx.training.ops.cross_entropy import linear_cross_entropy, linear_log_probabilities  # noqa: E402
from qwen_mlx.training.ops.forward import hidden_states  # noqa: E402
from qwen_mlx.training.ops.segments import SegmentStore  # noqa: E402
from qwen_mlx.training.ops.sft import batch_arrays, learnt_rows, sft_loss  # noqa: E402

__all__ = [
    "SegmentStore",
    "balance",
    "batch_arrays",
    "hidden_states",
    "learnt_rows",
    "linear_cross_entropy",
    "linear_log_probabilities",
    "load_balancing_loss",
    "load_metrics",
    "router_use",
    "segment_attention",
    "sft_loss",
]
