"""Other programs' formats: their files -> matrices as MLX packs them, and back to GGUF.

Each format has one file that knows its layout and the keys of its configuration; `foreign_tensor.py` is what they all
give. Nothing here writes a checkpoint: `checkpoints/import_.py` and `checkpoints/export.py` do.
"""
