"""Mounted Markdown blocks brought into line with newly parsed tokens, touching only what differs.

Old and new tokens are compared group by group, a group being one block with all that is in it. While a text grows
only the last group differs, and inside it only the last item, and so on down to one paragraph, which takes over its
new content in place. What changed its kind is replaced.
"""

from __future__ import annotations

from markdown_it.token import Token
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Markdown
from textual.widgets._markdown import (
    MarkdownBlock,
    MarkdownBlockQuote,
    MarkdownBullet,
    MarkdownFence,
    MarkdownHeader,
    MarkdownList,
    MarkdownListItem,
    MarkdownParagraph,
)

from tui.widgets.markdown_blocks import StreamTable

Group = list[Token]
LISTS = ("bullet_list_open", "ordered_list_open")
_SHOWN = (
    *("paragraph_open", "heading_open", "fence", "code_block", "table_open", "blockquote_open", "hr"),
    *LISTS,
)


def groups(tokens: list[Token]) -> list[Group]:
    """Tokens by the block they belong to, in order; kinds that are not shown are left out."""
    found: list[Group] = []
    depth = 0
    for token in tokens:
        if depth == 0:
            found.append([])
        found[-1].append(token)
        depth += token.nesting
    return [group for group in found if group[0].type in (*_SHOWN, "list_item_open")]


def build(page: Markdown, group: Group, depth: int = 0) -> MarkdownBlock:
    """The widget of one block that stands `depth` bullet lists deep."""
    bullets = Markdown.BULLETS
    turn = depth % len(bullets)
    page.BULLETS = bullets[turn:] + bullets[:turn]
    try:
        return next(iter(page._parse_markdown(group)))
    finally:
        page.BULLETS = bullets


async def sync(
    page: Markdown, parent: Widget, mounted: list[Widget], old: list[Group], new: list[Group], depth: int = 0
) -> None:
    """Make `mounted`, the last children of `parent`, which show `old`, show `new`."""
    kept = 0
    for widget, before, after in zip(mounted, old, new):
        if not (_same(before, after) or await _grow(page, widget, before, after, depth)):
            break
        kept += 1
    for widget in mounted[kept:]:
        await widget.remove()
    if new[kept:]:
        await parent.mount_all([build(page, group, depth) for group in new[kept:]])


async def _grow(page: Markdown, widget: Widget, old: Group, new: Group, depth: int) -> bool:
    """Let a mounted block take over newer content in place; False when it has to be replaced."""
    if old[0].type != new[0].type or old[0].tag != new[0].tag:
        return False
    if isinstance(widget, MarkdownList):
        return await _grow_list(page, widget, old, new, depth)
    if isinstance(widget, MarkdownBlockQuote):
        await sync(page, widget, list(widget.children), groups(old[1:-1]), groups(new[1:-1]), depth)
        return True
    newer = build(page, new, depth)
    if isinstance(widget, StreamTable) and isinstance(newer, StreamTable):
        return await widget.grow(newer)
    if isinstance(widget, MarkdownHeader):
        widget.set_content(newer._content)
        return True
    if isinstance(widget, (MarkdownParagraph, MarkdownFence)):
        await widget._update_from_block(newer)
        return True
    return False


async def _grow_list(page: Markdown, widget: MarkdownList, old: Group, new: Group, depth: int) -> bool:
    before, after = groups(old[1:-1]), groups(new[1:-1])
    rows = list(widget.children)
    if len(rows) != len(before) or before[0][0].info != after[0][0].info:
        return False
    ordered = old[0].type == "ordered_list_open"
    if ordered and len(before[-1][0].info) != len(after[-1][0].info):
        return False  # the numbers have become wider, all of them
    for row in rows[len(after) :]:
        await row.remove()
    for row, item, newer in zip(rows, before, after):
        if not _same(item, newer):
            body = row.children[-1]
            await sync(
                *(page, body, list(body.children), groups(item[1:-1]), groups(newer[1:-1])),
                depth if ordered else depth + 1,
            )
    if len(after) > len(before):
        rest = build(page, [new[0], *(token for item in after[len(before) :] for token in item), new[-1]], depth)
        symbols = _numbers(after)[len(before) :] if ordered else None
        await widget.mount_all(_row(item, symbols[i] if symbols else None) for i, item in enumerate(rest._blocks))
    return True


def _row(item: MarkdownBlock, symbol: str | None) -> Horizontal:
    """One line of a list, as Textual builds it."""
    bullet = MarkdownBullet()
    bullet.symbol = symbol or (item.bullet if isinstance(item, MarkdownListItem) else "")
    return Horizontal(bullet, Vertical(*item._blocks))


def _numbers(items: list[Group]) -> list[str]:
    """The numbers in front of ordered items: counted up from the first, aligned to the right."""
    first = items[0][0].info
    start = int(first) if first.isdigit() else 1
    texts = [f"{start + i}. " for i in range(len(items))]
    return [text.rjust(len(texts[-1]) + 1) for text in texts]


def _same(old: Group, new: Group) -> bool:
    """Whether two groups look the same. Line numbers, and whether a list is loose, do not show."""
    return len(old) == len(new) and all(
        (a.type, a.tag, a.info, a.content, a.attrs) == (b.type, b.tag, b.info, b.content, b.attrs)
        for a, b in zip(old, new)
    )
