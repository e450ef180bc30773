"""Data, tokenizer, training loop and scoring of the tiny demo checkpoint (see build_demo_model.py)."""
