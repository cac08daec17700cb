#!/bin/sh
# Make the virtual environment and install the pins into it: called by the Makefile.
#   sh site/environment.sh .venv requirements.txt
set -eu
folder=$1
pins=$2

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

fail() {
    echo "make: $*" >&2
    exit 1
}

if ! "$folder/bin/python" -c 'import pip' 2>/dev/null; then
    chosen=
    for name in ${PYTHON:-python3 python python3.14 python3.13 python3.12 python3.11}; do
        if recent "$name"; then
            chosen=$name
            break
        fi
    done
    [ -n "$chosen" ] || fail "the book needs Python 3.11 or newer, and ${PYTHON:-python3} is" \
        "$("${PYTHON:-python3}" --version 2>/dev/null || echo not there); if you have a newer" \
        "one, name it: make PYTHON=/path/to/python3.12"
    "$chosen" -c 'import ensurepip, venv' 2>/dev/null || fail "$chosen can't make virtual" \
        "environments: its package venv is missing (on Debian: apt-get install python3-venv)"
    echo "Making $folder with $("$chosen" --version)"
    "$chosen" -m venv --clear "$folder" || fail "$folder could not be made"
fi

rm -f "$folder"/.ready-*
echo "Installing $pins into $folder (once; minutes, most of them for torch)"
"$folder/bin/python" -m pip install --quiet --requirement "$pins" ||
    fail "the packages of $pins could not be installed: the lines above say why." \
        "Run the same command again when that is mended"
"$folder/bin/python" -m pip install --quiet --no-deps --editable . ||
    fail "the book's own package lib could not be installed: the lines above say why"
