"""Mounted Markdown blocks brought into line with newly parsed tokens, touching only what differs.

Old and new tokens are compared group by group, a group being one block with all that is in it. While a text grows
only the last group differs, and inside it only the last item, and so on down to one paragraph, which takes over its
new content in place. What changed its kind is replaced.
"""

from __future__ import annotations

from markdown_it.token import Token
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Markdown
from textual.widgets._markdown import (
    MarkdownBlock,
    MarkdownBlockQuote,
    MarkdownFence,
    MarkdownHeader,
    MarkdownList,
    MarkdownListItem,
    MarkdownParagraph,
)

from tui.widgets.markdown_lists import ListRow, numbers
from tui.widgets.markdown_lists import row as make_row
from tui.widgets.markdown_table import StreamTable

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
    symbols = list(numbers(after[0][0].info, len(after))) if ordered else None
    for place, (row, item, newer) in enumerate(zip(rows, before, after)):
        if not _same(item, newer):
            symbol = symbols[place] if symbols else None
            await _grow_row(page, row, item, newer, new, depth if ordered else depth + 1, symbol)
    if len(after) > len(before):
        added = _items(page, new, after[len(before) :], depth)
        places = range(len(before), len(after))
        await widget.mount_all(
            make_row(item, _symbol(item, symbols[place] if symbols else None)) for place, item in zip(places, added)
        )
    return True


async def _grow_row(
    page: Markdown, row: Widget, old: Group, new: Group, whole: Group, depth: int, symbol: str | None
) -> None:
    """Let one item of the list `whole` take over newer content; a plain one that is plain no more is replaced."""
    if isinstance(row, Horizontal) and not _is_plain(new):
        body = row.children[-1]
        await sync(page, body, list(body.children), groups(old[1:-1]), groups(new[1:-1]), depth)
        return
    (item,) = _items(page, whole, [new], depth if symbol else depth - 1)
    newer = make_row(item, _symbol(item, symbol))
    if isinstance(row, ListRow) and isinstance(newer, ListRow):
        row.set_content(newer._content)
    elif isinstance(row.parent, Widget):
        await row.parent.mount(newer, after=row)
        await row.remove()


def _items(page: Markdown, whole: Group, items: list[Group], depth: int) -> list[MarkdownBlock]:
    """Some items of the list `whole`, built but not mounted."""
    return list(build(page, [whole[0], *(token for item in items for token in item), whole[-1]], depth)._blocks)


def _symbol(item: MarkdownBlock, symbol: str | None) -> str:
    return symbol or (item.bullet if isinstance(item, MarkdownListItem) else "")


def _is_plain(item: Group) -> bool:
    """Whether an item is one paragraph at most, see `markdown_lists.row`."""
    inside = groups(item[1:-1])
    return not inside or (len(inside) == 1 and inside[0][0].type == "paragraph_open")


def _same(old: Group, new: Group) -> bool:
    """Whether two groups look the same. Line numbers, and whether a list is loose, do not show."""
    return len(old) == len(new) and all(
        (a.type, a.tag, a.info, a.content, a.attrs) == (b.type, b.tag, b.info, b.content, b.attrs)
        for a, b in zip(old, new)
    )
