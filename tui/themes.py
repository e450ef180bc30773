"""Two looks of our own, one dark and one light: quiet greys and one accent, violet.

Style sheets use theme variables only, so every theme of Textual works as well.
"""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="qwen-dark",
    dark=True,
    primary="#a293ff",
    secondary="#8b90a8",
    accent="#a293ff",
    foreground="#d9dbe6",
    background="#14151b",
    surface="#1a1b23",
    panel="#262835",
    success="#8fc7a1",
    warning="#dcb879",
    error="#ec8a8a",
    variables={
        "block-cursor-background": "#33305a",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#262835",
        "block-cursor-blurred-foreground": "#d9dbe6",
        "block-hover-background": "#20222c",
        "input-cursor-background": "#a293ff",
        "input-cursor-foreground": "#14151b",
        "input-selection-background": "#a293ff 30%",
        "border": "#4a4578",
        "border-blurred": "#2b2d3a",
        "scrollbar": "#2b2d3a",
        "scrollbar-hover": "#3a3d4e",
        "scrollbar-active": "#a293ff",
        "scrollbar-background": "#14151b",
        "scrollbar-background-hover": "#14151b",
        "scrollbar-background-active": "#14151b",
        "scrollbar-corner-color": "#14151b",
        "link-color": "#a293ff",
        "screen-selection-background": "#a293ff 30%",
    },
)

LIGHT = Theme(
    name="qwen-light",
    dark=False,
    primary="#5a45c8",
    secondary="#6d7187",
    accent="#5a45c8",
    foreground="#282a35",
    background="#fbfafd",
    surface="#f3f2f8",
    panel="#e6e4ef",
    success="#2f7d4f",
    warning="#8f6410",
    error="#b43a3a",
    variables={
        "block-cursor-background": "#ded8fb",
        "block-cursor-foreground": "#1d1a3a",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#e6e4ef",
        "block-cursor-blurred-foreground": "#282a35",
        "block-hover-background": "#ecebf3",
        "input-cursor-background": "#5a45c8",
        "input-cursor-foreground": "#ffffff",
        "input-selection-background": "#5a45c8 25%",
        "border": "#b6abef",
        "border-blurred": "#d9d6e6",
        "scrollbar": "#d9d6e6",
        "scrollbar-hover": "#c3bfd8",
        "scrollbar-active": "#5a45c8",
        "scrollbar-background": "#fbfafd",
        "scrollbar-background-hover": "#fbfafd",
        "scrollbar-background-active": "#fbfafd",
        "scrollbar-corner-color": "#fbfafd",
        "link-color": "#5a45c8",
        "screen-selection-background": "#5a45c8 25%",
    },
)

THEMES = (DARK, LIGHT)


def other(name: str) -> str:
    """The theme of ours to switch to from theme `name`."""
    return DARK.name if name == LIGHT.name else LIGHT.name
