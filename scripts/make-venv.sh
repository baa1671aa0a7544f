#!/bin/sh
# Makes the virtual environment that the first argument names, with the first Python that will do.
set -eu

venv=$1
here=$(dirname "$0")

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_venv() { "$1" -m ensurepip --version >/dev/null 2>&1; }  # Debian keeps it in python3-venv

# Sets python to the first that will do, or without_venv to the first that only lacks venv.
find_python() {
    python='' without_venv=''
    for candidate in "$@"; do
        new_enough "$candidate" || continue
        if has_venv "$candidate"; then
            python=$candidate
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
}

if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"  # asked for by name: no other will do
else
    set -- python3.11 python3.12 python3.13 python3
fi
find_python "$@"
if [ -z "$python" ] && [ -n "$without_venv" ] && sh "$here/apt-install.sh" python3-venv; then
    find_python "$@"
fi
if [ -z "$python" ]; then
    if [ -n "$without_venv" ]; then
        echo "$without_venv cannot make virtual environments: install python3-venv, or name another with PYTHON=..." >&2
    else
        echo "Alligator needs Python 3.11 or newer: install it, or name it with PYTHON=/path/to/python" >&2
    fi
    exit 1
fi

echo "Making $venv with $python ($("$python" -c 'import platform; print(platform.python_version())')) ..."
"$python" -m venv --clear "$venv"
