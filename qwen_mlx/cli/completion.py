"""`qwen-mlx completion`: a script that lets a shell complete the command line, made from the program's own parsers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

USAGE = "qwen-mlx completion {bash,zsh,fish}"
DESCRIPTION = "Prints a script that makes a shell complete commands, options and the names of models that are here."
EPILOG = """\
bash:  qwen-mlx completion bash > ~/.local/share/bash-completion/completions/qwen-mlx
zsh:   qwen-mlx completion zsh > "${fpath[1]}/_qwen-mlx"
fish:  qwen-mlx completion fish > ~/.config/fish/completions/qwen-mlx.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def run(args: argparse.Namespace) -> int:
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](_commands()), end="")
    return 0


@dataclass(frozen=True)
class _Option:
    """`names` with their dashes; `values` that it takes, empty for anything or nothing."""

    names: tuple[str, ...]
    text: str
    values: tuple[str, ...]
    takes_value: bool


@dataclass(frozen=True)
class _Command:
    name: str
    text: str
    options: tuple[_Option, ...]
    model: bool  # its words are names of models
    words: tuple[str, ...]


def _commands() -> list[_Command]:
    from qwen_mlx.cli.main import COMMANDS, command_parser

    found = []
    for name, text in COMMANDS.items():
        actions = command_parser(name)._actions
        options = [
            _Option(
                tuple(action.option_strings),
                (action.help or "").replace("%%", "%"),
                tuple(map(str, action.choices or ())),
                action.nargs != 0,
            )
            for action in actions
            if action.option_strings
        ]
        positional = [action for action in actions if not action.option_strings]
        words = tuple(str(choice) for action in positional for choice in action.choices or ())
        model = any(action.metavar == "MODEL" for action in positional)
        found.append(_Command(name, text, tuple(options), model, words))
    return found


def _bash(commands: list[_Command]) -> str:
    cases = []
    for command in commands:
        flags = " ".join(name for option in command.options for name in option.names)
        words = " ".join(command.words)
        models = "$(qwen-mlx list --quiet 2>/dev/null)" if command.model else ""
        cases.append(f'        {command.name}) flags="{flags}"; words="{words} {models}" ;;')
    names = " ".join(command.name for command in commands)
    return f"""\
# Completion of qwen-mlx for bash.
_qwen_mlx() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flags="" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{chr(10).join(cases)}
    esac
    case $word in
        -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
        *) COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word")) ;;
    esac
    # bash takes a colon for the end of a word
    if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$word"; fi
}}
complete -F _qwen_mlx qwen-mlx
"""


def _zsh(commands: list[_Command]) -> str:
    lines = [
        "#compdef qwen-mlx",
        "# Completion of qwen-mlx for zsh.",
        "_qwen_mlx_models() {",
        "    local -a models",
        '    models=("${(@f)$(qwen-mlx list --quiet 2>/dev/null)}")',
        "    compadd -a models",
        "    _files -/",
        "}",
        "_qwen_mlx() {",
        "    local -a commands",
        "    commands=(",
        *(f"        {_single(f'{command.name}:{command.text}')}" for command in commands),
        "    )",
        "    if (( CURRENT == 2 )); then _describe command commands; return; fi",
        "    local command=${words[2]}",
        "    shift words; (( CURRENT-- ))",
        "    case $command in",
    ]
    for command in commands:
        specs = [_zsh_option(option) for option in command.options]
        if command.words:
            specs.append(_single(f"*:word:({' '.join(command.words)})"))
        elif command.model:
            specs.append(_single("*:model:_qwen_mlx_models"))
        else:
            specs.append(_single("*:file:_files"))
        lines.append(f"        {command.name}) _arguments {' '.join(specs)} ;;")
    lines += [
        "    esac",
        "}",
        'if [ "$funcstack[1]" = _qwen-mlx ]; then _qwen_mlx "$@"; else compdef _qwen_mlx qwen-mlx; fi',
    ]
    return "\n".join(lines) + "\n"


def _zsh_option(option: _Option) -> str:
    text = option.text.replace("[", "(").replace("]", ")").replace(":", " -")
    value = f":value:({' '.join(option.values)})" if option.values else ":value:" if option.takes_value else ""
    return " ".join(_single(f"{name}[{text}]{value}") for name in option.names)


def _fish(commands: list[_Command]) -> str:
    lines = ["# Completion of qwen-mlx for fish.", "complete -c qwen-mlx -f"]
    for command in commands:
        lines.append(f"complete -c qwen-mlx -n __fish_use_subcommand -a {command.name} -d {_single(command.text)}")
        here = f"-n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            short = "".join(f" -s {name[1:]}" for name in option.names if not name.startswith("--"))
            long = "".join(f" -l {name[2:]}" for name in option.names if name.startswith("--"))
            value = (
                f" -x -a {_single(' '.join(option.values))}" if option.values else " -r" if option.takes_value else ""
            )
            lines.append(f"complete -c qwen-mlx {here}{short}{long}{value} -d {_single(option.text)}")
        if command.words:
            lines.append(f"complete -c qwen-mlx {here} -a {_single(' '.join(command.words))}")
        if command.model:
            lines.append(f"complete -c qwen-mlx {here} -a '(qwen-mlx list --quiet 2>/dev/null)'")
    return "\n".join(lines) + "\n"


def _single(text: str) -> str:
    """`text` in single quotes, for any of the three shells."""
    return "'" + text.replace("'", "'\\''") + "'"
