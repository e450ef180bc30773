"""Some hundreds of the damaged files that `scripts/fuzz_formats.py` makes, in this process."""

from __future__ import annotations

import pytest

from scripts import fuzz_formats


@pytest.mark.parametrize("kind", fuzz_formats.KINDS)
def test_damaged_files_are_refused_or_imported(kind, tmp_path):
    place = fuzz_formats.KINDS.index(kind)
    numbers = range(100_000 + place, 100_000 + 50 * len(fuzz_formats.KINDS), len(fuzz_formats.KINDS))
    outcomes = [fuzz_formats.run_case(number, tmp_path / str(number)) for number in numbers]
    findings = [o for o in outcomes if o.result not in ("refused", "imported", "slow")]  # a busy machine may be slow
    assert not findings, fuzz_formats.report(findings)
    assert len(outcomes) == 50 and {o.kind for o in outcomes} == {kind}
    assert sum(o.result == "refused" for o in outcomes) > 20


def test_undamaged_files_are_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_formats, "damaged", fuzz_formats.healthy)
    for number in range(8):
        outcome = fuzz_formats.run_case(number, tmp_path / str(number))
        assert outcome.result in ("imported", "slow"), outcome.detail


def test_findings_are_reported(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(fuzz_formats, "_use", broken)
    outcome = fuzz_formats.run_case(1, tmp_path / "1")
    assert outcome.result == "another exception" and "a mistake of ours" in outcome.detail
    text = "\n".join(fuzz_formats.report([outcome]))
    assert "another exception" in text and "ZeroDivisionError" in text
