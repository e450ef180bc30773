# shellcheck shell=bash
# What scripts/chat and scripts/test share: find a Python, and keep .venv in the repository root as it should be.
#
# ensure_venv KIND    KIND is "chat" (what running needs) or "dev" (that, and the tools of the tests).
#
# When .venv is in order this costs one small Python start. "In order" is what .venv/qwen-mlx.stamp says: it is
# written last, after everything is installed, and names the kind, pyproject.toml's checksum, the repository's place
# (an editable install breaks when the repository moves) and the Python that was asked for.
# Written for bash 3.2, which is what macOS has.

modules_chat="qwen_mlx tui mlx.core jinja2 numpy textual tokenizers"
modules_dev="$modules_chat hypothesis importlinter mypy pytest pytest_asyncio pytest_timeout ruff xdist"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# locate FILE: sets root, venv and self (what people call the script) from the script's own place.
locate() {
    self="scripts/$(basename -- "$1")"
    root=$(CDPATH='' cd -- "$(dirname -- "$1")/.." && pwd -P) || fail "cannot find the folder of $1"
    venv=$root/.venv
}

# ------------------------------------------------------------------------------------------------ which Python

# Runs on any Python since 2.7. Prints version, machine, whether it can make virtual environments, its own path.
probe='
import platform, sys
try:
    import ensurepip, venv
    able = "able"
except ImportError:
    able = "unable"
print("%d.%d.%d %s %s %s" % (tuple(sys.version_info[:3]) + (platform.machine() or "-", able, sys.executable)))
'

# try_python FILE: true when FILE is a Python we can use, then sets python and version. Otherwise adds why not
# to $found. A file that does not run at all (a pyenv shim of a version that is not selected) adds nothing.
try_python() {
    local file=$1 answer number machine able path note=""
    case $file in "$venv"/*) return 1 ;; esac # we may be about to replace it
    # Without the developer tools this one is a stub that opens a dialog.
    if [ "$file" = /usr/bin/python3 ] && [ "$(uname -s)" = Darwin ] && ! xcode-select -p >/dev/null 2>&1; then
        return 1
    fi
    answer=$("$file" -c "$probe" 2>/dev/null </dev/null) || return 1
    read -r number machine able path <<EOT
$answer
EOT
    [ -n "$path" ] || return 1
    local major=${number%%.*} minor=${number#*.}
    minor=${minor%%.*}
    if [ "$major" -lt 3 ] || { [ "$major" -eq 3 ] && [ "$minor" -lt 10 ]; }; then
        note="$number ($file)"
    elif [ "$(uname -s)" = Darwin ] && [ "$machine" != arm64 ]; then
        note="$number for Intel processors ($file)"
    elif [ "$able" = unable ] && [ -z "$uv" ]; then
        note="$number without its venv module ($file)"
    fi
    if [ -n "$note" ]; then
        case "$found" in *"$note"*) ;; *) found="${found:+$found, }$note" ;; esac
        return 1
    fi
    python=$path
    version=$number
}

# Ends the script on a Mac that MLX does not run on.
check_mac() {
    local system
    [ "$(uname -s)" = Darwin ] || return 0
    if [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" != 1 ]; then
        fail "qwen-mlx needs a Mac with Apple silicon: MLX does not run on Intel processors."
    fi
    system=$(sw_vers -productVersion 2>/dev/null)
    if [ "${system%%.*}" -lt 14 ] 2>/dev/null; then
        fail "qwen-mlx needs macOS 14 or newer, as MLX does; found $system. Update macOS, then run $self again."
    fi
}

# Sets python and version, or ends the script with one line that says what to do.
find_python() {
    local name file install
    found=""
    check_mac
    if [ "$(uname -s)" = Darwin ]; then
        install="Install one from python.org or with 'brew install python'"
    else
        install="Install one from python.org or with your package manager (Debian, Ubuntu: 'apt install python3-venv')"
    fi
    if [ -n "${QWEN_MLX_PYTHON:-}" ]; then
        file=$(type -P "$QWEN_MLX_PYTHON") && try_python "$file" && return
        fail "qwen-mlx needs Python 3.10 or newer; QWEN_MLX_PYTHON=$QWEN_MLX_PYTHON is ${found:-not a Python that runs}." \
            "Unset it or name another, then run $self again."
    fi
    for name in python3.13 python3.12 python3.11 python3.10 python3; do
        # Every one on PATH: the first may be a shim that does not run.
        while read -r file; do
            [ -n "$file" ] && try_python "$file" && return
        done <<EOT
$(type -aP "$name")
EOT
    done
    fail "qwen-mlx needs Python 3.10 or newer; found ${found:-none}. $install, then run $self again."
}

# ------------------------------------------------------------------------------------------------ is .venv in order

# The stamp of KIND: what .venv must have been made for.
stamp_for() { printf '%s %s %s' "$1" "$(cksum <"$root/pyproject.toml")" "$root"; }

# True when the packages of KIND are there: somebody may have deleted some.
whole() {
    local modules=$modules_chat
    [ "$1" = dev ] && modules=$modules_dev
    # shellcheck disable=SC2086
    [ -x "$venv/bin/qwen-mlx" ] && "$venv/bin/python" -I -c '
import sys
from importlib.util import find_spec
sys.exit(not all(map(find_spec, sys.argv[1:])))' $modules >/dev/null 2>&1
}

# True when .venv can be used for KIND as it is; "dev" holds all of "chat".
ready() {
    local kind=$1 stamped="" asked=""
    [ -f "$venv/qwen-mlx.stamp" ] || return 1
    { read -r stamped && read -r asked; } <"$venv/qwen-mlx.stamp"
    if [ "$stamped" != "$(stamp_for "$kind")" ] && [ "$stamped" != "$(stamp_for dev)" ]; then return 1; fi
    if [ -n "${QWEN_MLX_PYTHON:-}" ] && [ "$asked" != "asked $QWEN_MLX_PYTHON" ]; then return 1; fi
    whole "$kind"
}

# Prints why .venv, which is not ready for KIND, has to be made from nothing; prints nothing when it is enough to
# install into it.
why_remake() {
    local kind=$1 stamped="" asked=""
    if [ -e "$venv/setup.unfinished" ]; then
        echo "the last installation did not finish"
    elif [ ! -e "$venv/bin" ]; then
        echo "first run"
    elif ! "$venv/bin/python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
        echo "the Python in .venv does not run or is too old"
    elif [ -f "$venv/qwen-mlx.stamp" ]; then
        { read -r stamped && read -r asked; } <"$venv/qwen-mlx.stamp"
        if [ -n "${QWEN_MLX_PYTHON:-}" ] && [ "$asked" != "asked $QWEN_MLX_PYTHON" ]; then
            echo "QWEN_MLX_PYTHON has changed"
        elif [ "$stamped" = "$(stamp_for "$kind")" ] || [ "$stamped" = "$(stamp_for dev)" ]; then
            echo "packages are missing from .venv"
        else
            case $stamped in *" $root") ;; *) echo "the repository was moved" ;; esac
        fi
    elif [ -n "${QWEN_MLX_PYTHON:-}" ]; then
        echo "QWEN_MLX_PYTHON asks for another Python"
    fi
}

# ------------------------------------------------------------------------------------------------ making it

# quietly COMMAND...: its output is shown only when it fails.
quietly() {
    "$@" >"$venv/setup.log" 2>&1 && return
    tail -n 20 "$venv/setup.log" >&2
    return 1
}

# patiently COMMAND...: for what may take minutes; a person who is looking sees its progress.
patiently() {
    if [ -t 2 ]; then
        "$@" >&2
    else
        quietly "$@"
    fi
}

make_environment() {
    # The lock is open and must stay: empty the folder, keep the file.
    find "$venv/." -mindepth 1 -maxdepth 1 ! -name setup.lock ! -name setup.unfinished -exec rm -rf {} + || return 1
    if [ -n "$uv" ]; then
        quietly "$uv" venv --quiet --allow-existing --python "$python" "$venv"
    else
        quietly "$python" -m venv "$venv"
    fi
}

install_package() {
    local what="."
    [ "$1" = dev ] && what=".[dev]"
    if [ -n "$uv" ]; then
        patiently "$uv" pip install --python "$venv/bin/python" --editable "$what"
    else
        "$venv/bin/python" -I -m pip --version >/dev/null 2>&1 || quietly "$venv/bin/python" -m ensurepip || return 1
        # Editable installs from pyproject.toml came with pip 21.3; Python 3.10.0 brings an older one.
        quietly "$venv/bin/python" -I -m pip install --disable-pip-version-check "pip>=22" &&
            patiently "$venv/bin/python" -I -m pip install --disable-pip-version-check --editable "$what"
    fi
}

# Waits until nobody else installs into .venv. The lock belongs to file descriptor 9, which our installer inherits:
# it ends by itself when the last of the two is gone, killed or not, so it can never be left behind.
lock_venv() {
    { mkdir -p "$venv" && : >>"$venv/setup.lock"; } 2>/dev/null || fail "$self: cannot write to $venv"
    exec 9>>"$venv/setup.lock"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return
    say "$self: waiting for another installation into .venv"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null || fail "$self: cannot lock $venv"
}

ensure_venv() {
    local kind=$1 reason began=$SECONDS
    ready "$kind" && return
    uv=$(type -P uv) && "$uv" --version >/dev/null 2>&1 || uv=""
    find_python
    trap 'say ""; say "$self: interrupted; run it again to start over"; exit 130' INT
    lock_venv
    if ! ready "$kind"; then # else somebody made it while we waited
        reason=$(why_remake "$kind")
        if [ -n "$reason" ]; then
            say "$self: $reason: making .venv with Python $version and installing qwen-mlx into it, once"
        else
            say "$self: installing into .venv what pyproject.toml asks for ($kind)"
        fi
        rm -f "$venv/qwen-mlx.stamp"
        : >"$venv/setup.unfinished"
        (
            cd "$root" && { [ -z "$reason" ] || make_environment; } && install_package "$kind" && whole "$kind"
        ) || fail "$self: could not install qwen-mlx into $venv (see above); mend the cause and run $self again."
        printf '%s\nasked %s\n' "$(stamp_for "$kind")" "${QWEN_MLX_PYTHON:-}" >"$venv/setup.stamp"
        mv "$venv/setup.stamp" "$venv/qwen-mlx.stamp"
        rm -f "$venv/setup.unfinished" "$venv/setup.log"
        say "$self: ready after $((SECONDS - began)) s"
    fi
    exec 9>&-
    trap - INT
}
