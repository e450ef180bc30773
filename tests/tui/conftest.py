"""The same screen on every machine: no animation, no clipboard tool, no colour switched off."""

import os

os.environ["TEXTUAL_ANIMATIONS"] = "none"  # read when Textual is imported
os.environ.pop("NO_COLOR", None)

import pytest

from tests.tui.stage import Stage
from tui import clipboard
from tui.screens import chat


@pytest.fixture(autouse=True)
def no_collections(monkeypatch):
    """They would go through the heap of the whole test run; `test_garbage` has them."""
    monkeypatch.setattr(chat, "SETTLE_SECONDS", 3600.0)


@pytest.fixture(autouse=True)
def no_clipboard_tool(monkeypatch):
    monkeypatch.setattr(clipboard, "tool", lambda: None)


@pytest.fixture
def stage(tmp_path):
    """Makes apps that follow a script: `async with stage(reply("Hello")) as s: ...`."""

    def make(*replies, **options):
        return Stage(tmp_path, *replies, **options)

    return make


def pytest_collection_modifyitems(items):
    """A screen gets a second try: waits have limits, and on a machine that others use one may be too short."""
    for item in items:
        if item.path.parent.name == "tui":
            item.add_marker(pytest.mark.flaky(reruns=1))
