"""Tiny models with known answers: the table of cases, their random weights, and what other code computes with them.

`cases` and `weights` need numpy only, so that a test can rebuild a model without storing it. The engines need torch
and transformers; only `scripts/make_parity_fixtures.py` and the tests marked `reference` import them.
"""
