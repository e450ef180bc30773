"""What stands beside the curves of a run, in words. Pure functions."""

from __future__ import annotations

import math
from typing import Literal

from textual.content import Content

from tui.sanitize import sanitize
from tui.training.forecast import span
from tui.training.plot import number
from tui.training.run_view import RunView
from tui.wording import brief, meter, sentence, shorten, size

Tone = Literal["$primary", "$success", "$warning", "$error", "$secondary"]
_SAMPLES = 12
_NOTICES = 8


def headline(view: RunView, paused: bool, stopping: bool) -> tuple[str, Tone]:
    """What a run does, in a few words with a sign before them."""
    if view.state == "failed":
        return "✗ failed", "$error"
    if view.state == "finished":
        return ("✓ finished, it got no better" if view.reason == "early stop" else "✓ finished"), "$success"
    if view.state in ("stopped", "cancelled"):
        return ("◐ stopped, saved" if view.state == "stopped" else "○ called off before it began"), "$warning"
    if stopping:
        return "◐ stopping, after saving", "$warning"
    if paused:
        return "‖ paused", "$warning"
    if view.state == "training":
        return "◉ training", "$primary"
    progress = view.progress
    if progress is not None:
        part = f" {100 * progress.done // progress.total}%" if progress.total else ""
        return f"◌ {progress.stage}{part}", "$primary"
    return ("◌ preparing" if view.state == "preparing" else "○ waiting for the model's thread"), "$secondary"


def facts(view: RunView, width: int) -> Content:
    """The numbers of now, a line each: a word at the left, a value at the right."""
    rows: list[tuple[str, str, str]] = []
    step, evaluation = view.step, view.evaluation
    done, total = view.steps_done, view.steps
    if total:
        rows.append(("step", f"{done:,} of {total:,}", ""))
    if step is not None:
        epochs = view.config.get("loop", {}).get("epochs")
        rows.append(("epoch", f"{step.epoch:.2f}" + (f" of {epochs}" if epochs else ""), ""))
        skipped = "  skipped" if step.skipped else ""
        rows.append(("train loss", f"{number(step.loss)}{skipped}", "$error" if step.skipped else ""))
    if evaluation is not None:
        rows.append(("valid loss", f"{number(evaluation.loss)}  perplexity {_perplexity(evaluation.perplexity)}", ""))
    if view.best is not None:
        rows.append(("best", f"{number(view.best.loss)} at step {view.best.step:,}", "$success"))
    if step is not None:
        rows.append(("learning rate", number(step.learning_rate), ""))
        rows.append(("gradient norm", number(step.gradient_norm), ""))
        rows.append(("speed", f"{brief(round(step.tokens_per_second))} tok/s", ""))
        rows.append(("memory", f"{size(step.memory)}, peak {size(step.peak)}", _memory_tone(view)))
        rows.append(("computed", span(step.seconds), ""))
        if step.remaining is not None and not view.ended:
            rows.append(("left", f"about {span(step.remaining)}", ""))
        rows += [(name, number(value), "") for name, value in sorted(step.metrics.items())]
    elif view.forecast is not None:
        rows.append(("memory", f"about {size(view.forecast.peak)} of {size(view.forecast.available)}", ""))
    if view.saved is not None:
        rows.append(("saved", f"step {view.saved.step:,}, {_why(view.saved.why)}", ""))
    lines = [bar(view, width)] if total else []
    lines += [
        Content.assemble((f"{name:<14}", "$secondary"), (shorten(value, width - 14), tone))
        for name, value, tone in rows
    ]
    if not lines:
        lines.append(Content.styled("Nothing is known of it yet.", "$secondary"))
    return Content("\n").join(lines)


def brief_facts(view: RunView, width: int) -> Content:
    """The same in four lines, for narrow terminals."""
    lines = [bar(view, width)]
    step = view.step
    if step is not None:
        losses = f"train {number(step.loss)}"
        if view.evaluation is not None:
            losses += f" · valid {number(view.evaluation.loss)}"
        if view.best is not None:
            losses += f" · best {number(view.best.loss)} at {view.best.step:,}"
        lines.append(Content(shorten(losses, width)))
        lines.append(
            Content(
                shorten(
                    f"rate {number(step.learning_rate)} · {brief(round(step.tokens_per_second))} tok/s · "
                    f"{size(step.memory)}, peak {size(step.peak)} · epoch {step.epoch:.2f}",
                    width,
                )
            )
        )
    if view.samples:
        sample = view.samples[-1]
        lines.append(Content.styled(shorten(f"› {sample.prompt}  {sample.text}", width), "$secondary"))
    return Content("\n").join(lines)


def bar(view: RunView, width: int) -> Content:
    """`▰▰▰▰▱▱▱▱ 24 %  120 of 500  12 min left`."""
    part = view.steps_done / view.steps if view.steps else 0.0
    text = f" {int(100 * part)} %"
    if view.step is not None and view.step.remaining is not None and not view.ended:
        text += f"  {span(view.step.remaining)} left"
    return Content.assemble((meter(part, max(4, min(24, width - len(text)))), "$primary"), text)


def told(view: RunView, width: int) -> Content:
    """Why it failed, what it noticed, and what it answered, the newest first."""
    parts: list[Content] = []
    if view.error:
        parts.append(Content.styled(sentence(sanitize(view.error)), "$error"))
    if view.notices:
        lines = [Content.styled("Notices", "bold")]
        for step, text in list(view.notices)[-_NOTICES:][::-1]:
            lines.append(Content.assemble((f"{step:>6,} ", "$secondary"), (sentence(sanitize(text)), "$warning")))
        parts.append(Content("\n").join(lines))
    if view.samples:
        lines = [Content.styled("What it answers", "bold")]
        for sample in list(view.samples)[-_SAMPLES:][::-1]:
            lines.append(
                Content.assemble((f"{sample.step:>6,} ", "$secondary"), (f"› {sanitize(sample.prompt)}", "$secondary"))
            )
            lines.append(Content(sanitize(sample.text) or "(nothing)"))
        parts.append(Content("\n").join(lines))
    if not parts:
        parts.append(Content.styled("Answers to your prompt, and what is noticed, come here.", "$secondary"))
    return Content("\n\n").join(parts)


def outcome(view: RunView) -> str:
    """How a run ended, as a sentence for who looks elsewhere."""
    if view.state == "finished":
        best = f" Its lowest valid loss is {number(view.best.loss)}, at step {view.best.step:,}." if view.best else ""
        early = " early, because it got no better" if view.reason == "early stop" else ""
        return f"{view.name} is trained{early}.{best}"
    if view.state == "stopped":
        return f"{view.name} is stopped and saved at step {view.steps_done:,}; r on its line goes on."
    if view.state == "failed":
        return f"{view.name}: {sentence(view.error)}"
    return f"{view.name} was called off before it began."


def _perplexity(value: float) -> str:
    return number(value) if math.isfinite(value) else "too large"


def _memory_tone(view: RunView) -> str:
    if view.step is None or view.forecast is None or not view.forecast.available:
        return ""
    return "$warning" if view.step.peak > view.forecast.available else ""


def _why(why: str) -> str:
    return {"schedule": "as planned", "best": "the best so far", "asked": "as you asked"}.get(why, why)
