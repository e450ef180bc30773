"""How Markdown of a model is read: GitHub's dialect, plus the mathematics models write.

HTML stays text: a terminal cannot show it, and dropping it would eat the "<T>" of a sentence about generics.
Formulas (`\\( \\)`, `\\[ \\]`, `$ $`, `$$ $$`) are shown as code, with their backslashes in place.
"""

from __future__ import annotations

from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin


@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """The one parser of the app; parsing keeps no state in it."""
    markdown = MarkdownIt("gfm-like", {"html": False})
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
    markdown.use(texmath_plugin, delimiters="brackets")
    markdown.core.ruler.push("formulas_as_code", _formulas_as_code)
    return markdown


def _formulas_as_code(state: StateCore) -> None:
    for token in state.tokens:
        if token.type in ("math_block", "math_block_eqno", "math_block_label"):
            token.type, token.tag, token.info = "fence", "code", "latex"
            token.content = token.content.strip("\n")
        for child in token.children or ():
            if child.type in ("math_inline", "math_inline_double"):
                child.type, child.tag = "code_inline", "code"
