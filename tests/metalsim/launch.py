"""Runs a compiled kernel over a grid: the Python side of `runtime/interface.h`."""

from __future__ import annotations

import concurrent.futures
import ctypes
import dataclasses
import itertools
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from tests.metalsim.errors import KINDS, THREADGROUP_MEMORY, Finding, Thread
from tests.metalsim.source_lines import locate

Schedule = Literal["forward", "reverse", "random", "greedy"]
SCHEDULES: dict[str, int] = {"forward": 0, "reverse": 1, "random": 2, "greedy": 3}
THREADGROUP_BYTES = 32768
_MOST_REPORTS = 16
_WRITABLE, _INITIALISED, _DUPLICATE_WRITES, _PARTIAL = 1, 2, 4, 8


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("element", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    )


class _Place(ctypes.Structure):
    _fields_ = (("known", ctypes.c_uint32), ("thread", ctypes.c_uint32 * 3), ("group", ctypes.c_uint32 * 3))


class _Report(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("other_address", ctypes.c_uint64),
        ("file", ctypes.c_char_p),
        ("line", ctypes.c_uint32),
        ("other_line", ctypes.c_uint32),
        ("place", _Place),
        ("other_place", _Place),
        ("text", ctypes.c_char * 320),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("group", ctypes.c_uint32 * 3),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_uint32),
        ("checked", ctypes.c_uint32),
        ("schedule", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("first_group", ctypes.c_uint64),
        ("group_count", ctypes.c_uint64),
        ("reports", ctypes.POINTER(_Report)),
        ("report_limit", ctypes.c_uint32),
        ("report_count", ctypes.c_uint32),
        ("accesses", ctypes.c_uint64),
        ("switches", ctypes.c_uint64),
        ("threads", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Buffer:
    """Memory that a kernel is given."""

    name: str
    array: np.ndarray
    writable: bool = False
    initialised: bool = True
    may_be_written_twice: bool = False
    may_stay_unwritten: bool = False

    def described(self) -> _Buffer:
        flags = (
            _WRITABLE * self.writable
            | _INITIALISED * self.initialised
            | _DUPLICATE_WRITES * self.may_be_written_twice
            | _PARTIAL * self.may_stay_unwritten
        )
        size = self.array.size * self.array.itemsize
        return _Buffer(self.array.ctypes.data, size, self.array.itemsize, flags, self.name.encode())


@dataclass(frozen=True)
class Order:
    """In which order threads run."""

    schedule: Schedule = "forward"
    seed: int = 0
    processors: int = 1


@dataclass
class Statistics:
    """Of one launch: watched memory accesses, switches between threads, threads of the grid."""

    accesses: int = 0
    switches: int = 0
    threads: int = 0


@dataclass
class Library:
    """A compiled kernel, loaded. It has one state, so one launch runs in it at a time; more copies, more launches."""

    path: Path
    checked: bool
    describe: Callable[[str, int], str]  # of a file and line, for messages
    _copies: list[ctypes.CDLL] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self, grid: Sequence[int], group: Sequence[int], buffers: Sequence[Buffer], order: Order
    ) -> tuple[list[Finding], Statistics]:
        """Run all threads of the grid.

        Args:
            grid, group: threads along three axes; groups at the far edges may be smaller.
            order: with several `processors`, as many copies of the kernel share the threadgroups.
        """
        with self._lock:
            copies = self._loaded(order.processors)
            if finding := self._too_much_memory(copies[0]):
                return [finding], Statistics()
            described = (_Buffer * max(1, len(buffers)))(*(buffer.described() for buffer in buffers))
            groups = math.prod(-(-threads // size) for threads, size in zip(grid, group))
            launches = []
            for first, count in _shares(groups, len(copies)):
                launch = _Launch(
                    grid=(ctypes.c_uint32 * 3)(*grid),
                    group=(ctypes.c_uint32 * 3)(*group),
                    buffers=described,
                    buffer_count=len(buffers),
                    checked=self.checked,
                    schedule=SCHEDULES[order.schedule],
                    seed=order.seed & 0xFFFFFFFF,
                    first_group=first,
                    group_count=count,
                    reports=(_Report * _MOST_REPORTS)(),
                    report_limit=_MOST_REPORTS,
                )
                launches.append(launch)
            _run_all(copies, launches)
            total = Statistics(
                *(sum(getattr(x, name) for x in launches) for name in ("accesses", "switches", "threads"))
            )
            reports = [launch.reports[i] for launch in launches for i in range(launch.report_count)]
            return _merged(self._finding(report) for report in reports), total

    def _loaded(self, count: int) -> list[ctypes.CDLL]:
        while len(self._copies) < count:
            if not self._copies:
                self._copies.append(ctypes.CDLL(str(self.path)))
                continue
            with tempfile.NamedTemporaryFile(suffix=".so") as copy:  # the same file would be the same library
                shutil.copyfile(self.path, copy.name)
                self._copies.append(ctypes.CDLL(copy.name))
        return self._copies[:count]

    @staticmethod
    def _too_much_memory(library: ctypes.CDLL) -> Finding | None:
        library.sim_threadgroup_bytes.restype = ctypes.c_uint64
        used = library.sim_threadgroup_bytes()
        if used <= THREADGROUP_BYTES:
            return None
        return Finding(THREADGROUP_MEMORY, f"{used} bytes of threadgroup memory, of {THREADGROUP_BYTES} that there are")

    def _finding(self, report: _Report) -> Finding:
        where = self._where(report.address)
        other_where = self._where(report.other_address)
        if report.file:
            file = report.file.decode(errors="replace")
            where = self.describe(file, report.line)
            other_where = self.describe(file, report.other_line) if report.other_line else ""
        return Finding(
            kind=KINDS[report.kind],
            message=report.text.decode(errors="replace"),
            where=where,
            thread=_thread(report.place),
            other=_thread(report.other_place),
            other_where=other_where,
            count=report.count,
        )

    def _where(self, address: int) -> str:
        found = locate(self.path, address) if address else None
        return self.describe(*found) if found else ""


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """One for all instructions of a line that say the same."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = finding.kind, finding.message, finding.where
        before = merged.get(key)
        merged[key] = dataclasses.replace(before, count=before.count + finding.count) if before else finding
    return list(merged.values())


def _thread(place: _Place) -> Thread | None:
    if not place.known:
        return None
    x, y, z = place.thread
    a, b, c = place.group
    return Thread((x, y, z), (a, b, c))


def _shares(groups: int, parts: int) -> list[tuple[int, int]]:
    """Ranges (first, count) of about the same length, none empty."""
    bounds = [groups * i // parts for i in range(parts + 1)]
    return [(low, high - low) for low, high in itertools.pairwise(bounds) if high > low]


def _run_all(copies: Sequence[ctypes.CDLL], launches: Sequence[_Launch]) -> None:
    def one(library: ctypes.CDLL, launch: _Launch) -> int:
        return int(library.sim_run(ctypes.byref(launch)))

    if len(launches) == 1:
        results = [one(copies[0], launches[0])]
    else:
        with concurrent.futures.ThreadPoolExecutor(len(launches)) as pool:
            results = list(pool.map(one, copies, launches))
    if any(results):
        raise MemoryError("not enough memory for the simulated buffers")
