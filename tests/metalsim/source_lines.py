"""Source lines of instructions, out of the line table (DWARF 4) in a compiled kernel."""

from __future__ import annotations

import bisect
import functools
import struct
from collections.abc import Iterator
from pathlib import Path

Row = tuple[int, str, int]  # address, file, line


def locate(library: Path, address: int) -> tuple[str, int] | None:
    """File (without folders) and line of the instruction at an offset from the beginning of the library.

    Where the optimizer made one instruction of several lines' the table has line 0; the line before it is near.
    """
    rows = line_table(library)
    i = bisect.bisect_right(rows, address, key=lambda row: row[0]) - 1
    while i >= 0 and rows[i][1] and not rows[i][2]:
        i -= 1
    if i < 0 or not rows[i][1]:
        return None
    return rows[i][1].rsplit("/", 1)[-1], rows[i][2]


@functools.lru_cache(maxsize=64)
def line_table(library: Path) -> list[Row]:
    """All rows, by address; one without a file ends a stretch of code."""
    data = _section(library.read_bytes(), ".debug_line")
    return sorted(_rows(data), key=lambda row: (row[0], row[1] != ""))


def _section(elf: bytes, name: str) -> bytes:
    """The contents of a section of a 64-bit ELF file; empty if there is none."""
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, headers + i * size) for i in range(count)]
    names = sections[names_index][4]
    for section in sections:
        start = names + section[0]
        if elf[start : elf.index(0, start)] == name.encode():
            return elf[section[4] : section[4] + section[5]]
    return b""


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return int(value)

    def unsigned(self) -> int:
        """ULEB128: seven bits a byte, the lowest first."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self) -> int:
        start = self.at
        value = self.unsigned()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self) -> str:
        end = self.data.index(0, self.at)
        value = self.data[self.at : end].decode(errors="replace")
        self.at = end + 1
        return value


def _rows(data: bytes) -> Iterator[Row]:
    at = 0
    while at < len(data):
        reader = _Reader(data, at)
        end = at + 4 + reader.number("I")
        if reader.number("H") == 4:
            yield from _program(reader, end)
        at = end


def _program(reader: _Reader, end: int) -> Iterator[Row]:
    """Run the line program of one unit (DWARF 4, section 6.2)."""
    header_length = reader.number("I")
    start = reader.at + header_length
    step = reader.number("B")
    reader.at += 2  # operations per instruction, default of is_stmt
    line_base, line_range, first_special = reader.number("b"), reader.number("B"), reader.number("B")
    operands = [0, *(reader.number("B") for _ in range(first_special - 1))]
    while reader.text():  # folders
        pass
    files = [""]
    while name := reader.text():
        files.append(name)
        for _ in range(3):
            reader.unsigned()
    reader.at = start
    address, file, line = 0, 1, 1
    while reader.at < end:
        code = reader.number("B")
        if code >= first_special:
            address += (code - first_special) // line_range * step
            line += line_base + (code - first_special) % line_range
            yield address, files[file], line
        elif code == 0:
            length = reader.unsigned()
            after = reader.at + length
            extended = reader.number("B")
            if extended == 1:  # end of sequence
                yield address, "", 0
                address, file, line = 0, 1, 1
            elif extended == 2:  # set address
                address = reader.number("Q")
            reader.at = after
        elif code == 1:  # copy
            yield address, files[file], line
        elif code == 2:
            address += reader.unsigned() * step
        elif code == 3:
            line += reader.signed()
        elif code == 4:
            file = reader.unsigned()
        elif code == 8:
            address += (255 - first_special) // line_range * step
        elif code == 9:
            address += reader.number("H")
        else:
            for _ in range(operands[code]):
                reader.unsigned()
