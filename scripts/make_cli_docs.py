"""Writes docs/cli.md from the program's own --help. `--check` only says whether it is current.

.venv/bin/python scripts/make_cli_docs.py
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from qwen_mlx.cli.main import COMMANDS, command_parser, program_parser
from qwen_mlx.paths import atomic_write

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_COLUMNS = "100"

_HEAD = """\
# The command line

<!-- Made by scripts/make_cli_docs.py from --help: change the program, not this page. -->

`scripts/chat` and `scripts/test` need nothing but a Python: they make `.venv` and then run what is described here.
Without them, the program is `.venv/bin/qwen-mlx`, or `qwen-mlx` wherever the package is installed.
"""

_TAIL = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed; the reason is on standard error |
| 2 | an option or argument that cannot be meant |
| 3 | a model or file that is not there |
| 4 | too little space on a disk |
| 5 | the network, or a hub that refuses |
| 6 | a damaged or unsupported model |
| 70 | a bug in qwen-mlx |
| 130 | interrupted (Ctrl-C) |
| 141 | whoever read the output closed it |

## Environment variables

| variable | meaning |
|---|---|
| `QWEN_MLX_MODEL` | the model when none is named |
| `QWEN_MLX_HOME` | folder of conversations and typed lines |
| `QWEN_MLX_CACHE` | folder of what can be made again |
| `QWEN_MLX_THEME` | the theme of the terminal app |
| `QWEN_MLX_BLAS` | on Linux: the BLAS library to load, or `off` |
| `QWEN_MLX_WIRED` | `off` leaves macOS's limit for wired memory alone |
| `QWEN_MLX_KERNELS` | on a GPU: `off`, `all`, `default`, or names of kernels (docs/kernels.md) |
| `QWEN_MLX_DEBUG` | `1` is the same as `--debug` |
| `QWEN_MLX_PYTHON` | which Python `scripts/chat` and `scripts/test` make `.venv` with |
| `HF_HOME`, `HF_HUB_CACHE` | where the Hugging Face cache is |
| `HF_TOKEN`, `HF_TOKEN_PATH` | who you are on the hub; else what `hf auth login` stored |
| `HF_ENDPOINT`, `MODELSCOPE_DOMAIN` | the address of a mirror |
| `HF_HUB_OFFLINE` | `1`: do not use the network |
| `HF_HUB_DOWNLOAD_TIMEOUT` | seconds without a byte before a connection is made again; 30 |
| `NO_COLOR` | anything but empty: no colour |
"""


def page() -> str:
    """The text of docs/cli.md."""
    os.environ["COLUMNS"] = _COLUMNS  # the width argparse folds at
    parts = [_HEAD, _section("qwen-mlx", program_parser())]
    parts += [_section(f"qwen-mlx {name}", command_parser(name)) for name in COMMANDS]
    return "\n".join([*parts, _TAIL])


def _section(title: str, parser: argparse.ArgumentParser) -> str:
    return f"## {title}\n\n```text\n{parser.format_help().rstrip()}\n```\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is out of date")
    args = parser.parse_args()
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if current == page():
        print(f"{PAGE} is current")
        return 0
    if args.check:
        print(f"{PAGE} is out of date: run scripts/make_cli_docs.py", file=sys.stderr)
        return 1
    with atomic_write(PAGE) as file:
        file.write(page())
    PAGE.chmod(0o644)
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
