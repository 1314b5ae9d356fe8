#!/bin/sh
# Writes requirements/*.txt: every package that homeostat runs, tests and is built with, by version and hash.
#
# Run by hand (`make lock`) to take newer versions; the result is committed and is all that `make setup`
# installs from. pip-tools lives in a folder of its own for as long as this takes, not in the environment.
# The files hold neither index nor machine: hashes are the same wherever a file is fetched from.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11} # the oldest supported: what it resolves is checked on 3.12 and 3.13 by tests
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check pip-tools

compile() { # compile OUTPUT ARGUMENT...: pip-compile with what all three files share
    output=$1
    shift
    "$scratch/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        --output-file "$output" "$@"
}

export PIP_CONFIG_FILE=/dev/null # a mirror or folder set up on one machine must not choose versions for all
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_CONSTRAINT || true
rm -f requirements/*.txt
compile requirements/runtime.txt pyproject.toml
compile requirements/dev.txt --extra dev --constraint requirements/runtime.txt pyproject.toml
compile requirements/build.txt requirements/build.in
# What the supervisors that we are measured beside run is in our own versions: the same child for all.
compile requirements/peers.txt --constraint requirements/runtime.txt requirements/peers.in
