"""Text files beside a message."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.chat import attachments
from qwen_mlx.chat.attachments import Attachment, with_attachments
from qwen_mlx.errors import NotFound, UsageError


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("héllo\r\nwörld\r".encode(), "héllo\nwörld\n"),
        (b"\xef\xbb\xbfmarked", "marked"),
        ("你好".encode("utf-16"), "你好"),
        ("你好".encode("utf-32"), "你好"),
    ],
)
def test_text_is_read(tmp_path, data, text):
    (tmp_path / "a.txt").write_bytes(data)
    assert attachments.read(tmp_path / "a.txt") == Attachment("a.txt", text)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"caf\xe9 au lait", r"is not text; expected UTF-8; found byte 0xe9 at 3"),
        ("a.bin", b"x\0y", "zero byte at 1"),
        ("a.txt", b" \n", "is empty"),
        ("a.txt", b"x" * (attachments.MAX_BYTES + 1), "too large; expected at most 1,000,000 bytes"),
        ("cat.png", b"whatever", "is a picture. The models here read text; they cannot see yet"),
        ("cat", b"\x89PNG\r\n\x1a\n", "is a picture"),
        ("cat", b"RIFF....WEBPVP8", "is a picture"),
        ("paper.pdf", b"%PDF-1.7", "is a PDF; expected a text file"),
        ("letter.docx", b"PK", "is a Word document"),
    ],
)
def test_what_is_no_text_is_said_kindly(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        attachments.read(tmp_path / name)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "pipe", "device or a pipe")):
        with pytest.raises(UsageError, match=message):
            attachments.read(path)
    for missing in (tmp_path / "none", "a\0b"):
        with pytest.raises(NotFound, match="there is no file"):
            attachments.read(missing)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(UsageError, match="cannot be read"):
            attachments.read(tmp_path / "secret")


def test_the_largest_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * attachments.MAX_BYTES)
    assert attachments.read(tmp_path / "a").nbytes == attachments.MAX_BYTES


def test_the_model_sees_each_file_between_tags_that_name_it():
    files = (Attachment("notes.md", "one\ntwo\n"), Attachment('a "b"<c>.txt', "three"))
    assert with_attachments("What is this?", files) == (
        '<file name="notes.md">\none\ntwo\n</file>\n\n'
        '<file name="a &quot;b&quot;&lt;c>.txt">\nthree\n</file>\n\nWhat is this?'
    )
    assert with_attachments("x", ()) == "x"


@given(st.lists(st.sampled_from(["<file", "</file", "<file2", "</file3>", " name=", ">", "\n", "text"])).map("".join))
def test_a_file_cannot_end_its_own_tag(text):
    shown = with_attachments("q", [Attachment("x", text)])
    tag = re.match(r'<(file\d*) name="x">\n', shown).group(1)
    assert shown.endswith(f"\n</{tag}>\n\nq")
    assert shown.count(f"</{tag}>") == 1 + text.count(f"</{tag}>") == 1


def test_json_and_back():
    files = (Attachment("a", "x\ny"), Attachment("b", "你好"))
    assert attachments.from_json(json.loads(json.dumps(attachments.to_json(files)))) == files
    assert attachments.from_json([{"name": 1}, 3, {"name": "a", "text": "t"}]) == (Attachment("a", "t"),)
    assert attachments.from_json({"no": "list"}) == ()
