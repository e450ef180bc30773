"""What is written about a run: JSON lines, a table, and TensorBoard's files."""

from __future__ import annotations

import csv
import json
import struct

import pytest

from qwen_mlx.events import Eval, Progress, Sample, Step
from qwen_mlx.training.report import Report
from qwen_mlx.training.tensorboard import crc32c, masked, record

STEP = Step(3, 10, 0.5, 1.25, 1e-3, 0.7, 100, 40.0, 55.5, 1000, 2000, 9.0, 21.0, {"moe_loss": 0.1})


@pytest.mark.parametrize(
    "data, crc",
    [
        (b"", 0),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc32c_is_that_of_the_rfc(data, crc):
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == crc


def records(data: bytes):
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (masked(crc32c(data[:8])),)
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(crc32c(body)),)
        yield body
        data = data[16 + length :]


def fields(data: bytes) -> list[tuple[int, object]]:
    """A protobuf message in wire format: (number, value)."""
    found, place = [], 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            found.append((number, varint()))
        elif kind == 2:
            length = varint()
            found.append((number, data[place : place + length]))
            place += length
        else:
            size, form = (8, "<d") if kind == 1 else (4, "<f")
            found.append((number, struct.unpack(form, data[place : place + size])[0]))
            place += size
    return found


def test_tensorboard_files_hold_what_was_measured(tmp_path):
    report = Report(tmp_path, ["tensorboard"])
    report.write(STEP)
    report.write(Eval(300, 0.5, 1.65, 20.0, True, 1.0))
    report.write(Sample(300, "Wie spät?", "fünf\n" * 40))
    report.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert ".tfevents." in path.name
    version, step, judged, said = (dict(fields(body)) for body in records(path.read_bytes()))
    assert version[3] == b"brain.Event:2"
    assert step[2] == 3 and judged[2] == 300

    def scalars(event):
        values = [dict(fields(value)) for number, value in fields(event[5]) if number == 1]
        return {value[1].decode(): value[2] for value in values}

    got = scalars(step)
    assert got["train/loss"] == 1.25 and got["train/moe_loss"] == pytest.approx(0.1) and got["memory/peak"] == 2000
    assert scalars(judged) == pytest.approx({"valid/loss": 0.5, "valid/perplexity": 1.65})
    (value,) = (dict(fields(value)) for _, value in fields(said[5]))
    tensor = fields(value[8])
    assert (1, 7) in tensor and dict(tensor)[8].decode() == "Wie spät?\n\n" + "fünf\n" * 40


def test_numbers_that_are_none_are_left_out(tmp_path):
    report = Report(tmp_path, ["tensorboard", "csv"])
    report.write(Step(1, 2, 0.1, float("nan"), 1e-3, float("inf"), 1, 1.0, 0.0, 0, 0, 0.0, skipped=True))
    report.close()
    (row,) = csv.DictReader((tmp_path / "metrics.csv").open())
    assert (row["loss"], row["skipped"]) == ("", "True")
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert line["loss"] is None and line["type"] == "step"


def test_a_table_goes_on_where_it_was(tmp_path):
    for _ in range(2):
        report = Report(tmp_path, ["csv"])
        report.write(STEP)
        report.write(Eval(3, 0.5, 1.65, 20.0, True, 1.0))
        report.close()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(row["step"], row["loss"], row["valid_loss"]) for row in rows] == [("3", "1.25", ""), ("3", "", "0.5")] * 2


def test_half_a_line_does_not_spoil_the_next(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"type": "st')
    report = Report(tmp_path, [])
    report.write(Progress("load", 1, 2, "layers"))  # not kept: there are thousands
    report.write(STEP)
    report.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["step"] == 3


def test_a_record_is_framed():
    data = record(b"abc")
    assert list(records(data + record(b""))) == [b"abc", b""]
