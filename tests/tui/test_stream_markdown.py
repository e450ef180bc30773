"""Streamed Markdown: however the text is cut, the screen ends up as if it had come at once."""

import random

import pytest
from rich.cells import cell_len
from textual.app import App
from textual.content import Content
from textual.widgets import Markdown
from textual.widgets._markdown import MarkdownBullet, MarkdownFence, MarkdownTable

from tui.widgets import markdown_blocks, stream_markdown
from tui.widgets.markdown_blocks import OPEN_LIMIT
from tui.widgets.markdown_lists import ListRow
from tui.widgets.markdown_parser import parser
from tui.widgets.markdown_table import Grid, StreamTable
from tui.widgets.stream_markdown import StreamMarkdown

SAMPLES = {
    "fence": "Intro text\n\n```python\ndef f(x):\n    return x\n\nprint(f(1))\n```\n\nAfter the code.\n",
    "fence without blank lines": "Intro:\n```python\na = 1\nb = 2\n```\nAfter.\n",
    "fence first": "```\n  Client\n    |\n    v\n```\nDone\n",
    "fence last": "Text\n\n```bash\nls -la\n```",
    "fence never closed": "Text\n\n```rust\nfn main() {}\n",
    "long fence": "```python\n" + "x = [1, 2, 3]  # numbers\n" * 12 + "```\n\nafter\n",
    "nested list": "- a\n  - b\n    - c\n- d\n\n  para in d\n- e\n",
    "list and lazy line": "- a\n**b** still a\n\n- c\n",
    "two lists": "- a\n- b\n\n* c\n* d\n\n1. e\n2. f\n",
    "list with code": "1. one\n2. two\n   ```python\n   x=1\n   ```\n3. three\n",
    "long list": "".join(f"- item {i} **b**\n" for i in range(9)) + "\nend\n",
    "long ordered list": "".join(f"{i}. item {i}\n" for i in range(5, 13)) + "\nend\n",
    "long loose list": "".join(f"* item {i}\n\n" for i in range(7)) + "end\n",
    "long nested list": "".join(f"- item {i}\n  - sub a\n  - sub b\n" for i in range(6)) + "\nend\n",
    "table": "Here\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | **4** |\n\nend\n",
    "table that is cut by code": "| a | b |\n|---|---|\n| 1 | 2 |\n```\nx\n```\n",
    "setext": "Title\n=====\n\nBody text\n\nSub\n---\n\nmore\n",
    "quote": "> quoted\n> more\n\n> > nested\n\npara\n",
    "inline": "This is **bold** and *it* and `code` ~~s~~ [link](http://x.y) done.\n\nNext para **b**.\n",
    "math": "Let $x^2$ and \\(a_1 * b_1\\) be\n\n$$\n\\int_0^1 x dx\n$$\n\n\\[\nE = mc^2\n\\]\n\nend, $5 and $6\n",
    "html": "<div>\nhi\n</div>\n\nA `Vec` is a Vec<T> and <b>not</b> bold\n",
    "references": "See [foo][1] and [bar].\n\nother\n\n[1]: http://e.com\n[bar]: http://b.ar\n\n[bar] again\n",
    "rule": "a\n\n---\n\nb\n***\nc\n",
    "line ends": "a\r\n\r\n```py\r\nx\r\n```\r\n\r\nb\rc\n",
    "odd line ends": "a\u2028b\x0bc\x0cd\x85e\n\n```\nx\u2028y\n```\nafter\n",
    "escapes": "plain \x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 nul\x00 bell\x07 end\n",
    "indented code": "para\n\n    indented code\n    more\n\npara\n",
    "loose list with code": "* one\n\n* two\n\n  ```js\n  let a;\n  ```\n\n* three\n\ndone\n",
    "chinese": "## 标题\n\n通义千问**很强**。\n\n- 一\n- 二\n\n```py\nprint('你好')\n```\n",
    "headings": "# A\ntext\n## B\ntext\n### C\n- x\n- y\n#### D\nz\n",
    "blank": "\n\n\n",
    "markup": "[red]not markup[/] [@click=app.quit]no[/]\n",
}


class Page(App):
    def compose(self):
        yield StreamMarkdown(id="streamed")
        yield StreamMarkdown(id="whole")


def tree(widget, depth=0):
    """Everything mounted, as lines; the parts of a long list count as one."""
    lines = []
    for block in widget.children:
        if isinstance(block, MarkdownFence):
            lines.append(f"{'  ' * depth}fence {block.lexer} {block.code!r}")
            continue
        if isinstance(block, MarkdownTable):
            rows = [[str(cell) for cell in row] for row in [block._headers, *block._rows]]
            lines.append(f"{'  ' * depth}table {rows}")
            continue
        if isinstance(block, ListRow):  # stands for four widgets of Textual
            parts = ("Horizontal ", f"MarkdownBullet {block.symbol.strip()}", "Vertical ")
            depths = (0, 1, 1)
            lines += [f"{'  ' * (depth + deeper)}{part}" for part, deeper in zip(parts, depths)]
            lines += [f"{'  ' * (depth + 2)}MarkdownParagraph {block._content}"] if block._content else []
            continue
        text = block.symbol.strip() if isinstance(block, MarkdownBullet) else getattr(block, "_content", "")
        name = type(block).__name__
        name = name.replace("Stream", "Markdown") if name.endswith("List") else name
        if not (lines and name.endswith("List") and lines[-1] == "continued"):
            lines.append(f"{'  ' * depth}{name} {text}")
        else:
            lines.pop()
        lines += tree(block, depth + 1)
        if block.has_class("-continued"):
            lines.append("continued")
    return lines


def pieces(text, seed):
    rng = random.Random(seed)
    longest = (2, 5, 30, 200)[seed % 4]
    while text:
        size = rng.randint(1, longest)
        yield text[:size]
        text = text[size:]


@pytest.fixture
def small_limits(monkeypatch):
    """So that short samples are long lists and long code."""
    monkeypatch.setattr(markdown_blocks, "OPEN_LIMIT", 150)
    monkeypatch.setattr(stream_markdown, "LIST_ITEMS", 4)


@pytest.mark.parametrize("name", SAMPLES)
async def test_any_cut_gives_the_same_page(name, small_limits):
    text = SAMPLES[name]
    app = Page()
    async with app.run_test(size=(80, 60)):
        streamed, whole = app.query_one("#streamed"), app.query_one("#whole")
        await whole.replace(text)
        await whole.finish()
        for seed in range(4):
            await streamed.replace("")
            for piece in pieces(text, seed):
                await streamed.append(piece)
            await streamed.finish(text)
            assert streamed.source.strip("\n") == whole.source.strip("\n")
            assert tree(streamed) == tree(whole), f"seed {seed}"


async def test_what_a_textual_markdown_shows_is_shown():
    """Our own block kinds agree with the widget they come from."""
    text = SAMPLES["inline"] + SAMPLES["table"] + SAMPLES["nested list"] + SAMPLES["fence"] + SAMPLES["quote"]

    class Both(App):
        def compose(self):
            yield StreamMarkdown()
            yield Markdown(id="stock", parser_factory=parser)

    app = Both()
    async with app.run_test(size=(80, 60)) as pilot:
        for piece in pieces(text, 2):
            await app.query_one(StreamMarkdown).append(piece)
        await app.query_one(StreamMarkdown).finish()
        await app.query_one("#stock").update(text)
        await pilot.pause()
        assert tree(app.query_one(StreamMarkdown)) == tree(app.query_one("#stock"))


async def test_an_append_touches_the_last_block_only():
    app = Page()
    async with app.run_test(size=(80, 60)):
        page = app.query_one("#streamed")
        await page.append("first\n\n```py\nx\n```\n\n" + "".join(f"- {n}\n" for n in range(30)) + "\nlast")
        before = list(page.children)
        await page.append(" one")
        assert list(page.children) == before, "a paragraph grows in place"
        await page.append("\n\n# new\n")
        assert list(page.children)[: len(before)] == before


async def test_a_long_list_does_not_mount_its_items_again(small_limits):
    app = Page()
    async with app.run_test(size=(80, 60)):
        page = app.query_one("#streamed")
        seen = set()
        for number in range(20):
            await page.append(f"- item {number}\n")
            seen.update(page.query(ListRow))
        assert len(seen) < 20 * 1.5
        assert [row.parent.parent for row in page.query(ListRow)] == [page] * 20
        assert len(page.query("*")) < 20 * 2.5, "one widget an item"


async def test_items_of_a_list_change_their_kind():
    app = Page()
    async with app.run_test(size=(60, 30)) as pilot:
        page = app.query_one("#streamed")
        await page.append("- ")
        await page.append("one **b")
        first = page.query_one(ListRow)
        await page.append("old** and a text that is long enough to be wrapped at sixty cells\n- two\n")
        assert page.query(ListRow).first() is first and str(first._content).startswith("one bold and")
        await pilot.pause()
        assert first.size.height == 2
        await page.append("  - inner\n")
        await page.finish()
        await pilot.pause()
        frame = "\n".join(
            "".join(segment.text for segment in line).rstrip() for line in app.screen._compositor.render_strips()
        )
        assert "• one bold and a text" in frame and "\n    at sixty cells" in frame
        assert "• two" in frame and "inner" in frame
        assert isinstance(page.query_one(ListRow), ListRow)


async def test_a_list_is_selected_with_its_symbols():
    app = Page()
    async with app.run_test(size=(60, 30)) as pilot:
        page = app.query_one("#streamed")
        await page.append("1. one `x`\n2. two\n\nend\n")
        await page.finish()
        await pilot.pause()
        app.screen.text_select_all()
        assert "1. one x\n 2. two" in app.screen.get_selected_text()


async def test_a_table_grows_by_its_new_rows():
    app = Page()
    async with app.run_test(size=(80, 60)) as pilot:
        page = app.query_one("#streamed")
        await page.append("| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 |\n")
        await pilot.pause()
        table, grid = page.query_one(StreamTable), page.query_one(StreamTable).grid
        assert grid.drawn == 3 and len(page.query("*")) == 1
        await page.append("| 3 | 4")
        await page.append(" |\n| 5 | 6 |\n")
        await pilot.pause()
        assert page.query_one(StreamTable) is table and table.grid.drawn <= 3, "rows that were drawn stay as they are"
        assert [[str(cell) for cell in row] for row in table._rows] == [["1", "2"], ["1", "2"], ["3", "4"], ["5", "6"]]
        assert "│ 5 │ 6 │" in frame_of(app)


def frame_of(app):
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)


async def test_a_wide_table_is_wrapped_and_links_in_it_work():
    opened = []

    class Links(Page):
        def open_url(self, url, *, new_tab=True):
            opened.append(url)

    app = Links()
    async with app.run_test(size=(60, 40)) as pilot:
        page = app.query_one("#streamed")
        words = " ".join(["word"] * 30)
        await page.append(
            f"| name | 通义 |\n|---|---|\n| [go](https://qwen.ai) | {words} |\n| x |\n| `c` | **b** | more |\n"
        )
        await page.finish()
        await pilot.pause()
        lines = frame_of(app).splitlines()
        table = [line.strip() for line in lines if "│" in line or "─" in line]
        assert len({cell_len(line) for line in table}) == 1 and cell_len(table[0]) <= 60
        assert sum(line.count("word") for line in table) == 30
        row = next(y for y, line in enumerate(lines) if "go" in line)
        await pilot.click(offset=(lines[row].index("go"), row))
        await pilot.pause()
        assert opened == ["https://qwen.ai"]
        app.screen.text_select_all()
        assert "│ name │ 通义" in app.screen.get_selected_text()


@pytest.mark.parametrize("width", [1, 3, 8, 20, 33, 200])
def test_the_columns_of_a_table_share_the_room(width):
    cells = [Content("a" * 3), Content("b" * 50), Content("c" * 9)]
    grid = Grid([cells, cells])
    widths = grid.widths(width)
    assert all(least >= 1 for least in widths)
    if width >= 13:
        assert sum(widths) + 10 <= width or widths == [3, 50, 9]
    if width == 200:
        assert widths == [3, 50, 9]
    if width == 33:
        assert widths == [3, 11, 9]


async def test_long_code_is_coloured_once_it_is_whole():
    app = Page()
    code = "def f():\n    return 'x'\n" * (OPEN_LIMIT // 20)
    async with app.run_test(size=(80, 60)):
        page = app.query_one("#streamed")

        def colours():
            return len(page.query_one("#code-content").content.spans)

        await page.append("```python\ndef f(): pass\n")
        assert colours() > 0
        await page.append(code)
        assert colours() == 0
        await page.append("```\n\nafter\n\nmore")
        assert colours() > 100
        await page.finish()
        assert page.query_one(MarkdownFence).code == "def f(): pass\n" + code.rstrip()


async def test_finish_makes_the_screen_agree():
    app = Page()
    async with app.run_test(size=(80, 60)):
        page = app.query_one("#streamed")
        await page.append("The answer is ")
        await page.finish("The answer is 75")
        assert page.source == "The answer is 75"
        await page.finish("Something else")
        assert page.source == "Something else"
        assert tree(page) == ["MarkdownParagraph Something else"]


async def test_append_after_the_widget_is_gone_is_harmless():
    app = Page()
    async with app.run_test(size=(80, 60)):
        page = app.query_one("#streamed")
        await page.append("text")
        await page.remove()
        await page.append("more")
        await page.finish("all of it")


async def test_only_web_links_are_opened():
    opened = []

    class Links(Page):
        def open_url(self, url, *, new_tab=True):
            opened.append(url)

    app = Links()
    async with app.run_test(size=(80, 60)) as pilot:
        page = app.query_one("#streamed")
        for href in ("https://qwen.ai", "file:///etc/passwd", "javascript:alert(1)", "mailto:a@b.c"):
            page.post_message(Markdown.LinkClicked(page, href))
        await pilot.pause()
    assert opened == ["https://qwen.ai", "mailto:a@b.c"]
