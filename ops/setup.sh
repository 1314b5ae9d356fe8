#!/bin/sh
# Makes .venv with exactly what requirements/*.txt name, by hash, and this checkout installed in it.
#
# As root it installs the operating system's packages that are missing; as an ordinary user it prints the one
# command that does, and exits 1. A second run finds its stamp and ends at once. PYTHON chooses an interpreter.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd -P)
stamp=.venv/.setup-stamp

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

modern() { # modern PYTHON: whether it runs and is new enough
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

stamp_of() { # stamp_of PYTHON: what the environment depends on; the folder, for scripts name it in their first line
    printf '%s\n%s\n' "$root" "$("$1" -c 'import sys; print(sys.version)')"
    cat requirements/*.txt pyproject.toml ops/setup.sh | sha256sum
}

up_to_date() {
    [ -f "$stamp" ] && modern .venv/bin/python && [ "$(cat "$stamp")" = "$(stamp_of .venv/bin/python)" ]
}

choose_python() { # sets $python, empty where there is none
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if modern "$candidate"; then
            python=$(command -v "$candidate")
            return
        fi
    done
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python of 3.11 or newer"
}

links_with_libcap() {
    printf '#include <stdio.h>\n#include <sys/capability.h>\nint main(void) { return !cap_get_proc(); }\n' |
        gcc -x c - -lcap -o /dev/null 2>/dev/null
}

missing_packages() { # sets $missing to Debian's names of what is not there
    missing=
    if [ -z "$python" ]; then
        missing="python3 python3-venv python3-dev"
    else
        # Debian splits its own interpreters; any other brings these parts with it.
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python$version-venv"
        headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
        [ -f "$headers/Python.h" ] || missing="$missing python$version-dev"
    fi
    links_with_libcap || missing="$missing gcc libc6-dev libcap-dev" # python-prctl is compiled here
    # pyseccomp looks the library up when it is imported.
    [ -n "$(find_libseccomp)" ] || missing="$missing libseccomp2"
    missing=${missing# }
}

find_libseccomp() {
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -F libseccomp.so.2 || true
}

install_missing() {
    command="apt-get install -y --no-install-recommends $missing"
    if ! command -v apt-get >/dev/null; then
        die "missing, by Debian's names: $missing; install what your distribution calls them, then run this again"
    elif [ "$(id -u)" -ne 0 ]; then
        printf 'setup: packages of the operating system are missing. Run this, then run setup again:\n\n' >&2
        printf '    sudo %s\n\n' "$command" >&2
        exit 1
    fi
    say "installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Words are split on purpose: the command is a list of names that this script wrote.
    # shellcheck disable=SC2086
    $command >/dev/null
}

make_environment() {
    # One that runs and was made for this folder is brought up to date; any other is made anew.
    if ! { modern .venv/bin/python && [ -x .venv/bin/pip ] && grep -qsF "$root" .venv/bin/pip; }; then
        say "making .venv with $("$python" -V)"
        "$python" -m venv --clear .venv
    fi
    rm -f "$stamp"
}

install_locked() {
    pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet "$@"; }
    # The builders first: a build in isolation would fetch its own setuptools, of any version and without a hash.
    pip --require-hashes -r requirements/build.txt
    pip --require-hashes --no-build-isolation -r requirements/dev.txt
    pip --no-deps --no-build-isolation --no-index --editable .
}

if up_to_date; then
    exit 0
fi
[ -w . ] || die "$root is not writable for uid $(id -u), and its .venv is missing or out of date; run this as its owner"
choose_python
missing_packages
if [ -n "$missing" ]; then
    install_missing
    choose_python
    missing_packages
    [ -z "$missing" ] || die "still missing after the installation: $missing"
fi
make_environment
say "installing the locked packages"
install_locked
stamp_of .venv/bin/python >"$stamp"
say "done: .venv ($(.venv/bin/python -V))"
