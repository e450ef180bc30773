"""Floats -> codes, scales and biases in MLX's formats."""
