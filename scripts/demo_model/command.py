"""A command of qwen-mlx with what people say who want its job done; the tables are in `command_table*.py`.

The entries of a list stand between '|'. `{m}` is a model, by a name of any size or as 'my model', 'this model' ...
"""

from __future__ import annotations

from dataclasses import dataclass


def split(text: str) -> list[str]:
    """The parts of a '|' list."""
    return [" ".join(part.split()) for part in text.split("|") if part.strip()]


@dataclass(frozen=True)
class Command:
    """One command line, the sentence that answers, and what people call its job."""

    line: str
    does: str
    does_zh: str
    verbs: str
    """Verbs, each combined with each object; the object stands at '_' if there is one."""
    objects: str
    free: str
    """Whole wishes that fit 'How do I ...?'"""
    nouns: str
    """Names of the job that fit 'Which command is for ...?'"""
    troubles: str
    """Whole sentences of people who have the problem, or the question, that the command solves."""
    verbs_zh: str
    objects_zh: str
    free_zh: str
    troubles_zh: str

    def combined(self) -> list[str]:
        """Every verb with every object, in English."""
        return [
            verb.replace("_", f" {item} ") if "_" in verb else f"{verb} {item}"
            for verb in split(self.verbs)
            for item in split(self.objects)
        ]

    def wishes(self) -> list[str]:
        """Every way of saying what one wants, in English."""
        return sorted({*self.combined(), *split(self.free)})

    def wishes_zh(self) -> list[str]:
        """Every way of saying what one wants, in Chinese."""
        joined = {
            verb.replace("_", item) if "_" in verb else verb + item
            for verb in split(self.verbs_zh)
            for item in split(self.objects_zh)
        }
        return sorted({*joined, *split(self.free_zh)})


MODELS_EN = split(
    """
    a model | a model | a model | the model | the model | the model | my model | my model | my model | this model |
    models | a Qwen model | Qwen | an LLM | a language model | some model | my Qwen | a local model | one model |
    that model | the demo model | any model | my own model | Qwen models
    """
)
MODELS_ZH = split(
    """
    模型 | 模型 | 模型 | 模型 | 一个模型 | 我的模型 | 这个模型 | Qwen | Qwen模型 | Qwen3 | 大模型 | 语言模型 | 千问 |
    本地模型 | 某个模型 | 千问模型
    """
)
MODEL_NAMES = split(
    """
    qwen3:0.6b | qwen3:1.7b | qwen3:4b | qwen3:8b | qwen3:14b | qwen3:32b | qwen2.5:0.5b | qwen2.5:7b | qwen2.5:3b |
    Qwen3 0.6B | Qwen3 1.7B | Qwen3 4B | Qwen3 8B | Qwen3 14B | Qwen 3 8B | Qwen 2.5 7B | Qwen2.5 1.5B | Qwen3-4B |
    Qwen3-8B | Qwen/Qwen3-4B | Qwen/Qwen3-0.6B | qwen3 | Qwen 3 | Qwen 2.5 | qwen2.5
    """
)
