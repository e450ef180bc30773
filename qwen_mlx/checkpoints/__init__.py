"""Files <-> arrays: load, save, and everything that must be checked on the way."""

from qwen_mlx import device

device.prepare()  # before anything imports mlx
