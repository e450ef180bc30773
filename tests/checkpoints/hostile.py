"""Files that claim to be safetensors and are not, or lie: each with what the refusal has to mention."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from typing import Any

DATA = bytes(80)
HONEST: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]},
    "b": {"dtype": "BF16", "shape": [8], "data_offsets": [64, 80]},
}


def pack(header: dict | bytes, data: bytes = DATA, length: int | None = None) -> bytes:
    """A safetensors file; `length` is what it claims its header to have."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _with(change: Callable[[dict], Any], data: bytes = DATA) -> bytes:
    header = copy.deepcopy(HONEST)
    change(header)
    return pack(header, data)


def _one(shape: Any, offsets: Any, dtype: Any = "F32", data: bytes = DATA) -> bytes:
    return pack({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, data)


_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"

# name -> (content, a piece of the message)
FILES: dict[str, tuple[bytes, str]] = {
    # cut off, or too long
    "empty": (b"", "an empty file"),
    "three bytes": (b"\x01\x02\x03", "at least 8 bytes"),
    "eight zeros": (bytes(8), "zeros"),
    "all zeros": (bytes(4096), "zeros"),
    "no header at all": (pack(b"", b""), "zeros"),
    "cut in the data": (pack(HONEST)[:-40], "cut off"),
    "cut in the header": (pack(HONEST)[:60], "ends inside its header"),
    "longer than its tensors": (pack(HONEST, DATA + b"x"), "longer than its tensors"),
    "data without tensors": (pack({}, DATA), "longer than its tensors"),
    # header length
    "header of 500 in a short file": (pack(HONEST, b"", 500), "ends inside its header"),
    "header of 1 GB": (pack(HONEST, DATA, 1 << 30), "at most 100000000 bytes"),
    "header of 2^40": (pack(HONEST, DATA, 1 << 40), "at most 100000000 bytes"),
    "header of 2^63 + 5": (pack(HONEST, DATA, (1 << 63) + 5), "at most 100000000 bytes"),
    "header of 2^64 - 1": (pack(HONEST, DATA, (1 << 64) - 1), "at most 100000000 bytes"),
    "header of 100 MB in a short file": (pack(HONEST, DATA, 100_000_000), "ends inside its header"),
    # another kind of file
    "web page": (b"<!doctype html><html>Access denied</html>" * 5, "web page"),
    "web page after blanks": (b"\n\n  <HTML><body>Log in</body></HTML>" * 5, "web page"),
    "xml error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "json error": (b'{"error": "Repository not found"}', "Repository not found"),
    "plain text": (b"Entry not found", "Entry not found"),
    "git-lfs pointer": (_LFS, "git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(100), "never opened"),
    "pickle": (b"\x80\x02}q\x00." + bytes(100), "never opened"),
    "pickle protocol 4": (b"\x80\x04\x95" + bytes(100), "never opened"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(100), "numpy"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(100), "gzip"),
    # JSON
    "a list": (pack(b"[1,2,3]"), "begins with '{'"),
    "blank before the brace": (pack(b"  " + json.dumps(HONEST).encode()), "begins with '{'"),
    "byte order mark": (pack(b"\xef\xbb\xbf" + json.dumps(HONEST).encode()), "begins with '{'"),
    "braces": (pack(b"{{{{{{{{"), "invalid JSON"),
    "two objects": (pack(b"{}{}"), "invalid JSON"),
    "nested lists": (pack(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "nested too deeply"),
    "nested objects": (pack(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "nested and open": (pack(b'{"a":' + b"[" * 200_000), "nested too deeply"),
    "not UTF-8": (pack(b'{"\xff":1}'), "not UTF-8"),
    "lone surrogate": (
        pack(b'{"\\ud800":' + json.dumps(HONEST["a"]).encode() + b"}", bytes(64)),
        "printable",
    ),
    "NUL in a name": (pack({"a\0b": HONEST["a"]}, bytes(64)), "printable"),
    "escape sequence in a name": (pack({"\x1b[2J": HONEST["a"]}, bytes(64)), "\\x1b"),
    "NaN": (_one([float("nan")], [0, 64]), "NaN"),
    "Infinity": (_one([float("inf")], [0, 64]), "Infinity"),
    "infinite exponent": (pack(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,64]}}'), "too large"),
    "number of 5000 digits": (
        pack(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,64]}}'),
        "thousands of digits",
    ),
    "key twice": (
        pack(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"a":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}',
            bytes(64),
        ),
        "twice",
    ),
    "key twice, once escaped": (
        pack(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"\\u0061":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}',
            bytes(64),
        ),
        "twice",
    ),
    "shape twice": (
        pack(b'{"a":{"dtype":"F32","shape":[2],"shape":[16],"data_offsets":[0,64]}}', bytes(64)),
        "twice",
    ),
    # metadata
    "metadata list": (_with(lambda h: h.update(__metadata__=["x"])), "metadata"),
    "metadata number": (_with(lambda h: h.update(__metadata__={"x": 1})), "metadata"),
    "metadata nested": (_with(lambda h: h.update(__metadata__={"x": {"y": "z"}})), "metadata"),
    # entries
    "entry is a list": (_with(lambda h: h.update(a=[1])), "dtype, shape and data_offsets"),
    "entry is null": (_with(lambda h: h.update(a=None)), "dtype, shape and data_offsets"),
    "no shape": (_with(lambda h: h["a"].pop("shape")), "the key shape"),
    "no dtype": (_with(lambda h: h["a"].pop("dtype")), "the key dtype"),
    "no offsets": (_with(lambda h: h["a"].pop("data_offsets")), "the key data_offsets"),
    "unknown dtype": (_with(lambda h: h["a"].update(dtype="F99")), "F99"),
    "dtype in small letters": (_with(lambda h: h["a"].update(dtype="f32")), "f32"),
    "dtype is a list": (_with(lambda h: h["a"].update(dtype=["F32"])), "dtype"),
    "shape is a number": (_one(16, [0, 64]), "shape"),
    "shape is text": (_one("16", [0, 64]), "shape"),
    "shape of 40 axes": (_one([1] * 40, [0, 4]), "axes"),
    "axis is true": (_one([16, True], [0, 64]), "whole numbers"),
    "axis is a float": (_one([16.0], [0, 64]), "whole numbers"),
    "axis is text": (_one(["16"], [0, 64]), "whole numbers"),
    "axis is null": (_one([None], [0, 64]), "whole numbers"),
    "negative axes": (_one([-4, -4], [0, 64], data=bytes(64)), "whole numbers"),
    "one negative axis": (_one([-1, 0], [0, 0], data=b""), "whole numbers"),
    # sizes
    "shape larger than its bytes": (_one([4096, 4096], [0, 64]), "67108864 bytes"),
    "shape smaller than its bytes": (_one([2], [0, 64], data=bytes(64)), "8 bytes"),
    "2^31 squared": (_one([2**31, 2**31], [0, 0], data=b""), "whole numbers"),
    "2^33 + 4": (_one([2**33 + 4, 4], [0, 64], data=bytes(64)), "whole numbers"),
    "2^32 + 4": (_one([2**32 + 4, 4], [0, 64], data=bytes(64)), "whole numbers"),
    "65536 squared is 0 in 32 bits": (_one([65536, 65536], [0, 0], data=b""), "17179869184 bytes"),
    "2^62 elements are 0 bytes in 64 bits": (_one([2**30, 2**30, 4], [0, 0], data=b""), "64 bits"),
    "zero times too much": (_one([0, 2**31 - 1, 2**31 - 1, 8], [0, 0], data=b""), "64 bits"),
    "three 4-bit numbers": (_one([3], [0, 1], "F4", bytes(1)), "bytes for F4"),
    # offsets
    "offsets are one number": (_one([16], [0], data=bytes(64)), "two whole numbers"),
    "offsets are three": (_one([16], [0, 64, 80]), "two whole numbers"),
    "offsets are floats": (_one([16], [0.0, 64.0], data=bytes(64)), "two whole numbers"),
    "offsets are true": (_one([1], [False, True], "U8", b"x"), "two whole numbers"),
    "offsets are an object": (_one([16], {"0": 64}), "two whole numbers"),
    "offsets past the end": (_with(lambda h: h["b"].update(data_offsets=[10**9, 10**9 + 16])), "cut off"),
    "offsets of 2^64": (_with(lambda h: h["b"].update(data_offsets=[2**64, 2**64 + 16])), "cut off"),
    "offsets reversed": (_with(lambda h: h["b"].update(data_offsets=[80, 64])), "backwards"),
    "negative offsets": (_with(lambda h: h["b"].update(data_offsets=[-64, -48])), "before 0"),
    "overlap": (_with(lambda h: h["b"].update(data_offsets=[0, 16])), "overlap"),
    "small overlap": (_with(lambda h: h["b"].update(data_offsets=[62, 78]), bytes(78)), "overlap"),
    "hole": (_with(lambda h: h["b"].update(data_offsets=[70, 86]), bytes(86)), "hole"),
    "hole at the beginning": (_one([4], [8, 24], data=bytes(24)), "hole"),
    "empty tensor inside another": (
        _with(lambda h: h.update(c={"dtype": "F32", "shape": [0], "data_offsets": [32, 32]})),
        "overlap",
    ),
    "same bytes twice": (_with(lambda h: h.update(c=dict(h["a"]))), "overlap"),
}
