"""PEFT's `adapter_config.json`: what of it we follow, what says nothing here, and what we refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_mlx.adapters.config import AdapterConfig, check_alpha, check_rank
from qwen_mlx.adapters.patterns import first_match, fits
from qwen_mlx.errors import CheckpointError, UsageError

CONFIG = "adapter_config.json"
_EMPTY: tuple[Any, ...] = (None, False, "", [], {})
# How it was initialised, trained or stored; nothing that the saved arrays do not say.
_SAYS_NOTHING = frozenset(
    """
    auto_mapping base_model_name_or_path revision inference_mode task_type peft_version megatron_core loftq_config
    eva_config corda_config lora_ga_config velora_config runtime_config qalora_group_size lora_dropout
    ensure_weight_tying
    """.split()
)
_FOLLOWED = frozenset(
    """
    peft_type r lora_alpha use_rslora use_dora rank_pattern alpha_pattern target_modules target_parameters
    exclude_modules layers_to_transform layers_pattern modules_to_save bias init_lora_weights
    """.split()
)
# Ways to begin that also change the weights of the base.
_CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
_REASONS = {
    "fan_in_fan_out": "matrices stored the other way round",
    "lora_bias": "adapters with biases",
    "layer_replication": "a base with repeated layers",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "trainable_token_indices": "rows of the embedding that are trained apart",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "megatron_config": "Megatron's layers",
}


@dataclass(frozen=True)
class PeftConfig:
    """What `adapter_config.json` says.

    Attributes:
        config: as ours; `targets` are left as "all-linear", because the arrays tell what is adapted.
        base: name of the base model, or None.
        target_modules: names, or one pattern, or nothing.
        tied: whether embedding and head stay one matrix when they are replaced.
    """

    config: AdapterConfig
    base: str | None
    target_modules: tuple[str, ...] | str
    exclude_modules: tuple[str, ...] | str
    layers: tuple[int, ...] | None
    tied: bool

    def wants(self, module: str) -> bool | None:
        """Whether PEFT would adapt the linear layer of this name; None where that is not certain."""
        if isinstance(self.target_modules, str):
            if self.target_modules.lower() == "all-linear":
                return None
            wanted = fits(self.target_modules, module)
        else:
            wanted = any(module == name or module.endswith(f".{name}") for name in self.target_modules)
        if not wanted:
            return False
        if isinstance(self.exclude_modules, str):
            if self.exclude_modules and fits(self.exclude_modules, module):
                return False
        elif any(module == name or module.endswith(f".{name}") for name in self.exclude_modules):
            return False
        if self.layers is not None:
            numbers = [int(step) for step in module.split(".") if step.isdigit()]
            return bool(numbers) and numbers[0] in self.layers
        return True

    def pattern_name(self, module: str) -> str:
        """What the patterns of ranks and alphas are searched in: a module, or its parameter where that was named."""
        patterns = (*self.config.rank_pattern, *self.config.alpha_pattern)
        parameter = f"{module}.weight"
        return parameter if first_match(patterns, parameter) and not first_match(patterns, module) else module


def read(values: Mapping[str, Any], path: Path) -> PeftConfig:
    """Read the values of an `adapter_config.json`.

    Raises:
        CheckpointError: another kind of adapter, values that cannot be meant, or anything that would change what the
            adapter computes and is not followed here; names the file and the key.
    """

    def error(key: str, expected: str, hint: str | None = None) -> CheckpointError:
        found = repr(values.get(key))[:80]
        return CheckpointError(f"{path}: {key!r} cannot be followed", expected=expected, found=found, hint=hint)

    if str(values.get("peft_type")).upper() != "LORA":
        raise error("peft_type", "LORA", "Only LoRA, rsLoRA and DoRA are computed here.")
    _refuse_others(values, path)
    if values.get("bias", "none") != "none":
        raise error("bias", "none", "The adapter also trained biases of the base.")
    begin = values.get("init_lora_weights")
    if isinstance(begin, str) and begin.lower().startswith(_CHANGES_BASE):
        raise error(
            "init_lora_weights",
            "an adapter of the unchanged base",
            "It changes the base, too: save it in PEFT with `path_initial_model_for_weight_conversion`.",
        )
    rank, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    ranks, alphas = (_mapping(values, key, error) for key in ("rank_pattern", "alpha_pattern"))
    dropout = values.get("lora_dropout", 0.0)
    flags = {key: values.get(key, False) for key in ("use_rslora", "use_dora")}
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise error(key, "true or false")
    try:
        check_rank("r", rank)
        check_alpha("lora_alpha", alpha)
        config = AdapterConfig(
            "dora" if flags["use_dora"] else "lora",
            rank,
            float(alpha),
            dropout if isinstance(dropout, (int, float)) and 0 <= dropout < 1 else 0.0,
            flags["use_rslora"],
            rank_pattern=ranks,
            alpha_pattern=alphas,
        )
        found = PeftConfig(
            config,
            values["base_model_name_or_path"] if isinstance(values.get("base_model_name_or_path"), str) else None,
            _names(values, "target_modules", error),
            _names(values, "exclude_modules", error),
            _layers(values, error),
            values.get("ensure_weight_tying") is True,
        )
        found.wants("")  # a pattern that cannot be used is told now
    except UsageError as problem:
        raise CheckpointError(f"{path}: {problem}") from None
    saved = values.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise error("modules_to_save", "a list of names")
    return found


def _refuse_others(values: Mapping[str, Any], path: Path) -> None:
    """Raises `CheckpointError` for a key that says something and is not followed."""
    for key, value in values.items():
        if key in _FOLLOWED or key in _SAYS_NOTHING or value in _EMPTY:
            continue
        reason = f" ({_REASONS[key]})" if key in _REASONS else ""
        raise CheckpointError(
            f"{path}: {key!r}{reason} may change what the adapter computes, and is not known here",
            found=repr(value)[:80],
            hint="Nothing was loaded: the numbers would not be those of the adapter.",
        )


def _mapping(values: Mapping[str, Any], key: str, error: Any) -> dict[str, Any]:
    value = values.get(key) or {}
    if not isinstance(value, dict):
        raise error(key, "an object of names")
    return value


def _names(values: Mapping[str, Any], key: str, error: Any) -> tuple[str, ...] | str:
    value = values.get(key) or ()
    if isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise error(key, "a list of names, or a pattern")
    return tuple(value)


def _layers(values: Mapping[str, Any], error: Any) -> tuple[int, ...] | None:
    value = values.get("layers_to_transform")
    if value is None or value == []:
        return None
    value = [value] if isinstance(value, int) else value
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise error("layers_to_transform", "a list of numbers")
    return tuple(value)
