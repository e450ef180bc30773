"""What the simulator says when a kernel is wrong, or when it cannot run one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {
    1: "out of bounds",
    2: "data race",
    3: "uninitialised read",
    4: "divergence",
    5: "read-only memory",
    6: "foreign memory",
    7: "undefined behaviour",
    8: "unwritten output",
}
THREADGROUP_MEMORY = "threadgroup memory"


class SimulatorError(Exception):
    """Anything that is wrong with a kernel, or with the simulator's own means."""


class ToolchainError(SimulatorError):
    """There is no compiler that the simulator can use, or this machine is of a kind it does not run on."""


class CompileError(SimulatorError):
    """The Metal compiler would refuse the kernel. Each line of the message says where in `header` or `source`."""


@dataclass(frozen=True)
class Thread:
    """Where a thread is: its `thread_position_in_threadgroup` and `threadgroup_position_in_grid`."""

    position: tuple[int, int, int]
    threadgroup: tuple[int, int, int]

    def __str__(self) -> str:
        return f"thread {_triple(self.position)} of threadgroup {_triple(self.threadgroup)}"


def _triple(values: tuple[int, int, int]) -> str:
    return "(" + ",".join(map(str, values)) + ")"


@dataclass(frozen=True)
class Finding:
    """One fault of a run.

    Attributes:
        kind: one of `KINDS`, or "threadgroup memory".
        message: what happened.
        where: "source line 7: `out[i] = x[i];`", a file and line of an included header, or "" if unknown.
        thread: the thread that met it; None if no single one did.
        other: the thread it collided with, for races and divergence.
        other_where: what that one did.
        count: how often the same fault came up at this place.
    """

    kind: str
    message: str
    where: str = ""
    thread: Thread | None = None
    other: Thread | None = None
    other_where: str = ""
    count: int = 1

    def __str__(self) -> str:
        lines = [f"[{self.kind}] {self.message}" + (f" ({self.count} times)" if self.count > 1 else "")]
        if self.where or self.thread:
            lines.append("  at " + ", ".join(str(part) for part in (self.where, self.thread) if part))
        if self.other_where or self.other:
            lines.append("  and " + ", ".join(str(part) for part in (self.other_where, self.other) if part))
        return "\n".join(lines)


class KernelError(SimulatorError):
    """What the checks of one run found, in `findings`; the first one is the first that happened."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        self.name = name
        self.findings = tuple(findings)
        text = "\n".join(str(finding) for finding in self.findings)
        super().__init__(f"kernel {name}:\n" + "\n".join("  " + line for line in text.splitlines()))

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.kind == kind)
