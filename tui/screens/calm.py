"""A screen that is not restyled as a whole each time the terminal loses or gains the focus."""

from __future__ import annotations

from textual.dom import DOMNode
from textual.screen import Screen

from tui.widgets.chat_log import ChatLog


class CalmScreen(Screen[None], inherit_bindings=False):
    """Leaves out the log, where nothing depends on focus: leaving the terminal would stall a long conversation."""

    def update_node_styles(self, animate: bool = True) -> None:
        nodes: list[DOMNode] = [self]
        for child in self.children:
            nodes += [node for node in child.walk_children(with_self=True) if not _in_log(node)]
        self.app.stylesheet.update_nodes(nodes, animate=animate)


def _in_log(node: DOMNode) -> bool:
    return any(isinstance(ancestor, ChatLog) for ancestor in node.ancestors)
