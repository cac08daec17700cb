#!/bin/sh
# Make the virtual environment and install the pins into it. Called by the Makefile:
#   sh site/environment.sh .venv requirements.txt
# A stamp in the environment says for which pins it is ready. It is written last, so that an
# install which failed or was interrupted leaves none.
set -eu
folder=$1
pins=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    echo "make: $*" >&2
    exit 1
}

# the place counts: an environment that was moved still points to where lib used to be
stamp_for() {
    key=$( (pwd && cat requirements.txt "$1" pyproject.toml) | cksum | cut -d ' ' -f 1)
    echo "$folder/.ready-${1%.txt}-$key"
}
stamp=$(stamp_for "$pins")

alive() { "$folder/bin/python" -c 'import pip' 2>/dev/null; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -f "$stamp" ] && [ -x "$folder/bin/python" ]; then
    exit 0
fi

if ! alive; then
    chosen=
    for name in ${PYTHON:-python3 python python3.14 python3.13 python3.12 python3.11}; do
        if recent "$name"; then
            chosen=$name
            break
        fi
    done
    if [ -z "$chosen" ]; then
        found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "not there")
        fail "the book needs Python 3.11 or newer, and ${PYTHON:-python3} is $found." \
            "If you have a newer one, name it: make book PYTHON=/path/to/python3.12"
    fi
    if ! "$chosen" -c 'import ensurepip, venv' 2>/dev/null; then
        fail "$chosen can't make virtual environments, its module venv is missing" \
            "(on Debian and Ubuntu: apt-get install python3-venv)."
    fi
    echo "Making $folder with $("$chosen" --version)."
    "$chosen" -m venv --clear "$folder" || fail "$folder could not be made."
fi

rm -f "$folder"/.ready-*
quiet=--quiet
if [ -t 1 ]; then quiet=; fi # whoever watches wants to see what the minutes are spent on
echo "Installing $pins into $folder: once, some minutes, most of them for torch."
# shellcheck disable=SC2086 # an empty $quiet must vanish
"$folder/bin/python" -m pip install $quiet --requirement "$pins" ||
    fail "the packages of $pins could not be installed; pip says why above." \
        "Run the same command again when that is mended."
# shellcheck disable=SC2086
"$folder/bin/python" -m pip install $quiet --no-deps --editable . ||
    fail "the book's own package, lib, could not be installed; pip says why above."
touch "$stamp" "$(stamp_for requirements.txt)" # every other list begins with the first one
