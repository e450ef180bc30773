"""Tiny models in other programs' formats, drawn from a seed; shared by the fixture maker and the tests.

Nothing here packs floats: any bits are a valid model, so codes are drawn, and what they mean is said by the programs
that read these formats (`scripts/make_format_fixtures.py`).
"""
