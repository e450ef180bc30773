"""How many bits each matrix of a model gets.

A recipe gives every matrix a format, by the part it plays: the body has one, and what costs more than its share of the
quality when it is coarse gets more bits. Routers of experts always have 8, as in mlx-lm: they are tiny, and a token
that goes to another expert is another token. Overrides have the last word.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qwen_mlx.checkpoints.mlx_names import Matrix
from qwen_mlx.checkpoints.stored import AFFINE_GROUPS
from qwen_mlx.errors import UsageError
from qwen_mlx.models.spec import QuantizationSpec

Mode = Literal["affine", "mxfp4", "nvfp4", "mxfp8"]
AFFINE_BITS = (2, 3, 4, 5, 6, 8)  # MLX also computes 1, which no model survives
# Bits and group size of the modes whose scales are 8-bit floats; they have no other.
MODES: Mapping[str, tuple[int, int]] = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
PLAIN = 16  # bits of an override that leaves a matrix as it is
DEFAULT_PRESET = "balanced"
# Below this many parameters, 3 bits leave little of a model.
FEW_PARAMETERS = 4_000_000_000

_ROUTERS = ("mlp.gate", "shared_expert_gate")
# How fast a DeltaNet forgets, per head: small, and an error stays in the state.
_DECAYS = ("in_proj_a", "in_proj_b", "in_proj_ba")
_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Override:
    """Matrices whose new name `pattern` is found in get `bits`, in groups of `group_size` if that is not None."""

    pattern: str
    bits: int
    group_size: int | None = None

    @classmethod
    def parse(cls, text: str) -> Override:
        """`regex=bits[:group]`; 16 bits leave a matrix as it is. Raises `UsageError`."""
        pattern, equals, form = text.rpartition("=")
        bits, colon, group = form.partition(":")
        try:
            if not equals or not pattern:
                raise ValueError
            re.compile(pattern)
            own = cls(pattern, int(bits), int(group) if colon else None)
        except (ValueError, re.error):
            raise UsageError(
                f"--override {text!r} cannot be read",
                expected="REGEX=BITS or REGEX=BITS:GROUP",
                hint="For example: --override 'down_proj$=6' --override 'lm_head=8:32'.",
            ) from None
        if own.bits != PLAIN:
            check_format(own.bits, own.group_size or 64, "affine", f"--override {text!r}")
        return own


@dataclass(frozen=True)
class Recipe:
    """The format of the body, and of what differs from it.

    Attributes:
        bits, group_size, mode: of the body.
        ends: bits of the embeddings and the head; None for those of the body.
        more: bits of the value and down projections of about half of the layers, those that llama.cpp's Q4_K_M favours;
            None for those of the body.
        decays: bits of the decay gates of a DeltaNet; likewise.
        overrides: the last that matches a matrix decides.
        smaller_groups: take a smaller group where the columns are no multiple of `group_size`.
        name: of the preset, for a person.
    """

    bits: int
    group_size: int = 64
    mode: Mode = "affine"
    ends: int | None = None
    more: int | None = None
    decays: int | None = None
    overrides: tuple[Override, ...] = ()
    smaller_groups: bool = True
    name: str = ""

    def formats(self, matrices: Sequence[Matrix], layers: int) -> dict[str, QuantizationSpec | None]:
        """The format of each matrix by its new name; None where it stays plain.

        Raises:
            UsageError: an override matches nothing, or asks for groups that do not divide the columns.
        """
        formats = {matrix.module: self._format(matrix, layers) for matrix in matrices}
        for override in self.overrides:
            if not any(re.search(override.pattern, name) for name in formats):
                raise UsageError(
                    f"--override {override.pattern!r} matches no matrix of this model",
                    expected="part of a name such as " + ", ".join(list(formats)[1:4]),
                )
        return formats

    def _format(self, matrix: Matrix, layers: int) -> QuantizationSpec | None:
        bits, group_size, mode, smaller = self.bits, self.group_size, self.mode, self.smaller_groups
        affine_group = group_size if mode == "affine" else 64
        if matrix.own.endswith(_ROUTERS):
            bits, group_size, mode, smaller = 8, 64, "affine", True
        elif (wanted := self._wanted(matrix.own, layers)) is not None:
            bits, group_size, mode = wanted, affine_group, "affine"
        override = next((o for o in reversed(self.overrides) if re.search(o.pattern, matrix.module)), None)
        if override is not None:
            if override.bits == PLAIN:
                return None
            bits, group_size, mode = override.bits, override.group_size or affine_group, "affine"
            if override.group_size and matrix.shape[-1] % group_size:
                raise UsageError(
                    f"groups of {group_size} do not fit {matrix.module}, which has {matrix.shape[-1]} columns"
                )
        return _fitting(bits, group_size, mode, matrix.shape[-1], smaller)

    def _wanted(self, own: str, layers: int) -> int | None:
        """Bits that this matrix gets for what it is; None for those of the body."""
        if own in ("embed_tokens", "lm_head"):
            return self.ends
        if own.endswith(_DECAYS):
            return self.decays
        if own.endswith(("v_proj", "down_proj")) and ".shared_expert." not in own and _is_favoured(own, layers):
            return self.more
        return None


PRESETS: Mapping[str, Recipe] = {
    "tiny": Recipe(3, ends=6, more=6, decays=8, name="tiny"),
    "small": Recipe(4, ends=6, decays=8, name="small"),
    "balanced": Recipe(4, ends=6, more=6, decays=8, name="balanced"),
    "quality": Recipe(6, decays=8, name="quality"),
    "max": Recipe(8, name="max"),
}


def check_format(bits: int, group_size: int, mode: str, what: str = "this format") -> None:
    """Raises `UsageError` for a format that MLX does not compute."""
    if mode in MODES:
        if (bits, group_size) != MODES[mode]:
            raise UsageError(
                f"{mode} has no other format",
                expected="{} bits in groups of {}".format(*MODES[mode]),
                found=f"{bits} bits in groups of {group_size}",
            )
        return
    if mode != "affine":
        raise UsageError(f"there is no mode {mode!r}", expected=", ".join(("affine", *MODES)))
    if bits not in AFFINE_BITS:
        raise UsageError(
            f"{what}: MLX does not compute {bits} bits", expected=", ".join(map(str, AFFINE_BITS)), found=str(bits)
        )
    if group_size not in AFFINE_GROUPS:
        raise UsageError(
            f"{what}: MLX does not compute groups of {group_size}",
            expected=", ".join(map(str, AFFINE_GROUPS)),
            found=str(group_size),
        )


def make_recipe(
    preset: str | None = None,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    overrides: Sequence[Override] = (),
) -> Recipe:
    """What the options of a person mean: a preset, or one format for the whole body.

    Raises:
        UsageError: options that exclude each other, an unknown preset, a format that MLX does not compute.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"there is no preset {preset!r}", expected=", ".join(PRESETS))
    if preset is not None and (bits is not None or mode != "affine"):
        raise UsageError("a preset decides bits and mode", hint="Give either a preset, or --bits and --mode.")
    if bits is None and mode == "affine":
        recipe = PRESETS[preset or DEFAULT_PRESET]
        if group_size is None:
            return dataclasses.replace(recipe, overrides=tuple(overrides))
        check_format(recipe.bits, group_size, "affine", f"--group-size {group_size}")
        return dataclasses.replace(recipe, group_size=group_size, overrides=tuple(overrides))
    own_bits, own_group = MODES.get(mode, (4, 64))
    bits = own_bits if bits is None else bits
    group_size = own_group if group_size is None else group_size
    what = f"--bits {bits}" if group_size in AFFINE_GROUPS else f"--group-size {group_size}"
    check_format(bits, group_size, mode, what)
    return Recipe(bits, group_size, mode, overrides=tuple(overrides), smaller_groups=False)  # type: ignore[arg-type]


def _is_favoured(own: str, layers: int) -> bool:
    """Every layer of the first and last eighth, and every third between (as llama.cpp's `use_more_bits`)."""
    match = _LAYER.search(own)
    if match is None:
        return False
    i, eighth = int(match[1]), layers // 8
    return i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2


def _fitting(bits: int, group_size: int, mode: Mode, columns: int, smaller: bool) -> QuantizationSpec | None:
    if columns % group_size == 0:
        return QuantizationSpec(bits, group_size, mode)
    if smaller and mode == "affine":
        fits = [size for size in AFFINE_GROUPS if size < group_size and columns % size == 0]
        return QuantizationSpec(bits, max(fits), mode) if fits else None
    return None


# ------------------------------------------------------------------------------------------------ sizes


def stored_bytes(size: int, form: QuantizationSpec | None, plain: int) -> int:
    """Bytes of a matrix of `size` weights in this format.

    Args:
        plain: bytes of a float, which scales and biases of the affine mode are too.
    """
    if form is None:
        return size * plain
    scales = 2 * plain if form.mode == "affine" else 1
    return size * form.bits // 8 + size // form.group_size * scales


def aim_at(
    target: float, matrices: Sequence[Matrix], layers: int, parameters: int, rest: int, plain: int, recipe: Recipe
) -> dict[str, QuantizationSpec | None]:
    """Formats that come as close to `target` bits per weight as can be without going over it.

    The body gets as many bits as fit; then, while there is room, matrices get more, in the order of what that is worth:
    embeddings and head, value and down projections (first those of the favoured layers), the other projections of the
    attention, and the rest.

    Args:
        parameters: of the model; `rest`: bytes of what is no matrix; `plain`: bytes of a float.
        recipe: its group size and overrides count.

    Raises:
        UsageError: even the smallest format is larger.
    """
    limit = target * parameters / 8 - rest
    sizes = {m.module: m.size for m in matrices}

    def total(formats: Mapping[str, QuantizationSpec | None]) -> int:
        return sum(stored_bytes(sizes[name], form, plain) for name, form in formats.items())

    def with_bits(bits: int) -> dict[str, QuantizationSpec | None]:
        flat = Recipe(bits, recipe.group_size, decays=8, overrides=recipe.overrides)
        return flat.formats(matrices, layers)

    fitting = [bits for bits in AFFINE_BITS if total(with_bits(bits)) <= limit]
    if not fitting:
        least = 8 * (total(with_bits(AFFINE_BITS[0])) + rest) / parameters
        raise UsageError(f"--target-bpw {target:g} cannot be reached", expected=f"{least:.2f} or more")
    formats = with_bits(fitting[-1])
    used = total(formats)
    for bits in [b for b in AFFINE_BITS if b > fitting[-1]][:2]:
        better = with_bits(bits)
        for matrix in sorted(matrices, key=_worth(layers)):
            name, before = matrix.module, formats[matrix.module]
            if before is None or better[name] == before or before.bits >= bits:
                continue
            more = stored_bytes(matrix.size, better[name], plain) - stored_bytes(matrix.size, before, plain)
            if used + more <= limit:
                formats[name], used = better[name], used + more
    return formats


def _worth(layers: int) -> Callable[[Matrix], tuple[int, int]]:
    def key(matrix: Matrix) -> tuple[int, int]:
        match = _LAYER.search(matrix.own)
        layer = int(match[1]) if match else 0
        from_the_ends = min(layer, layers - 1 - layer)
        if matrix.own in ("embed_tokens", "lm_head"):
            return 0, 0
        if matrix.own.endswith(("v_proj", "down_proj")):
            return 1 if _is_favoured(matrix.own, layers) else 2, from_the_ends
        return 3 if "_attn." in matrix.own else 4, from_the_ends

    return key
