"""GGUF, the format of llama.cpp: one file with metadata, tokenizer and tensors.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""
