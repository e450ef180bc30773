"""The model card of the demo model, with the scores that were measured."""

from __future__ import annotations

from collections.abc import Mapping

CARD = """---
license: mit
language: [en, zh]
library_name: mlx
tags: [mlx, qwen3, demo]
---

# qwen-mlx demo model

A language model of {parameters:.2f} million parameters with the Qwen3 architecture ({layers} layers, width {width},
grouped-query attention {heads}/{groups}, q/k norm, tied embeddings, byte-level BPE vocabulary of {vocabulary}), trained
from nothing on generated data for qwen-mlx. It comes with the package so that every part of it can be tried and tested
at once, without a download and without a GPU. **It is not a Qwen model, holds no weights of one, and knows nothing of
the world.** For real answers: `qwen-mlx pull qwen3:0.6b`.

## What it was taught

It was taught the following, in English and Chinese, with and without thinking (`/think`, `/no_think` and
`enable_thinking` work as in Qwen3); the scores below say how well it learnt each:

- add and subtract whole numbers of up to three digits, also in words; small products, quotients and comparisons
- reverse, spell, capitalize and measure a word, count letters, sort letters, words and numbers
- days, months and common units
- tell which qwen-mlx command does a job, how the terminal app is used, and what it is itself
- greetings, follow-up questions ("and plus 5?"), and your name within a conversation

## What it cannot do

Everything else: no facts, no translation, no writing, no code, no tools. It was taught to say so, but a question
unlike anything it has seen can get a wrong or odd answer, and long words and large numbers go wrong. Conversations
longer than {context} tokens are beyond its training.

## Scores

Greedy answers of this very folder (8-bit weights). Operand pairs, words and wordings marked held-out never occur in the
training data; the sum 27 + 48 does not either. Without thinking, sums are worked out in the answer itself. Three suites
ask which command does a job, and it matters how each came to be:

- *held-out wishes*: 6 % of the wishes in the training tables, chosen by a hash. Same author, same vocabulary: the
  easiest of the three.
- *wordings written apart*: written without the tables at hand. Earlier versions of the model were scored on them, and
  some misses of those versions were seen while the tables grew, so they are no longer a clean test.
- *blind wordings*: what a new user might type, written down before the tables were widened to their present size, by
  their author, who knew the smaller tables of the time. No wording and no mix was
  chosen by the answers to them.

The generator rejects every question of the last two lists, also after a greeting or before a "please".

| questions | right | of | share |
|---|---:|---:|---:|
{scores}

## Training

`scripts/build_demo_model.py` makes everything: the data (rules in `scripts/demo_model/`), the vocabulary, the training
and this page, with Muon for the matrices and AdamW for embeddings and norms, in float32; loss on the assistant's words
only. The weights here saw {examples:,} conversations in {steps:,} steps, {minutes:.0f} minutes on one shared CPU core.
They are not of one run: several runs were joined with `--restart`, with mixes and rates corrected on the way, and once
the MLPs, which a wrong weight decay had shrunk to nothing, were drawn anew by hand. The last 112 minutes (4,598 steps)
taught the mix that is heaviest on commands, with questions that are a few words in any order: 90 minutes at 0.7 of the
rates, then 22 at 0.45. What is shipped is the mean of the weights before and after those 22 minutes (`--average`): each
was better in one suite of commands and worse in another, and their mean was chosen by these scores.

An earlier state of the script was also run from nothing (85 minutes, 2,725 steps). Those weights named 86 of 100
held-out wishes and 97 of 112 blind wordings and added as well, but had learnt next to nothing of the jobs on words
(reverse: 0 of 60), which had too small a share of the mixes then. The mixes of today were not run from nothing.

    python scripts/build_demo_model.py --minutes 150 --out qwen_mlx/demo --work build/demo
    python scripts/build_demo_model.py --start qwen_mlx/demo --rate 0.5 --minutes 30 --work build/more --out build/new
    python scripts/build_demo_model.py --evaluate-only --out qwen_mlx/demo

The weights are stored in MLX's affine 8-bit format in groups of 64; mlx-lm loads the folder too.

## Licence

MIT, like qwen-mlx. No data of others was used.
"""


def score_rows(scores: Mapping[str, tuple[int, int]]) -> str:
    """The table's lines."""
    return "\n".join(
        f"| {name} | {right} | {asked} | {100 * right / asked:.1f} % |"
        for name, (right, asked) in scores.items()
        if asked
    )


def write_card(
    config: Mapping[str, int],
    parameters: int,
    scores: Mapping[str, tuple[int, int]],
    steps: int,
    examples: int,
    seconds: float,
) -> str:
    """The text of README.md."""
    return CARD.format(
        parameters=parameters / 1e6,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        groups=config["num_key_value_heads"],
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        scores=score_rows(scores),
        examples=examples,
        steps=steps,
        minutes=seconds / 60,
    )
