#!/bin/bash
# Runs the tests once more as an ordinary user; for root, who otherwise would never see what a user sees.
#
# The checkout, the environment and its interpreter may all lie beneath folders that only root may enter. So the
# user gets a copy of the tree in a folder of its own, an interpreter that it can run (the environment's own, or
# else the system's) and the installed packages, copied too. The uid is one that nobody has: what it may signal,
# own and count against its limits is then the tests' alone, and what is left running afterwards is a finding.
#
# Without arguments the suites run in parts (ops/suites.py, which says what a user's suites are). Arguments are
# pytest's, and then one pytest runs them all. Exits with its status; 1 also when there is no way to run
# (HOMEOSTAT_SKIP_USER_TESTS=1 lets that pass).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd -P)

if [ "$(id -u)" -ne 0 ]; then
    echo "user tests: uid $(id -u) is an ordinary user already"
    exit 0
fi

cannot() {
    if [ "${HOMEOSTAT_SKIP_USER_TESTS:-}" = 1 ]; then
        echo "user tests: SKIPPED: $*"
        exit 0
    fi
    echo "user tests: could not run: $* (HOMEOSTAT_SKIP_USER_TESTS=1 skips them)" >&2
    exit 1
}

free_uid() {
    local uid
    for uid in {63000..63999}; do
        if ! getent passwd "$uid" >/dev/null && ! getent group "$uid" >/dev/null && [ -z "$(pids_of "$uid")" ]; then
            echo "$uid"
            return
        fi
    done
}

pids_of() { # every living process of a uid, by /proc: procps need not be there; a zombie is its parent's business
    local pid
    for pid in $(find /proc -maxdepth 1 -regex '/proc/[0-9]+' -uid "$1" -printf '%f ' 2>/dev/null); do
        grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" && printf '%s ' "$pid"
    done
    true
}

as_user() {
    # setpriv keeps root's capabilities up to its exec, so what it executes itself may lie where only root can go: env
    # stands between, and executes the command without them. Nothing of root's environment is passed on.
    setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all -- \
        /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$base/home" TMPDIR="$base/tmp" LANG=C.UTF-8 \
        CI="${CI:-}" HOMEOSTAT_TEST_LANES="${HOMEOSTAT_TEST_LANES:-}" PYTHONDONTWRITEBYTECODE=1 "$@"
}

choose_interpreter() { # sets $python to one that the user can run
    local candidate
    for candidate in "$(readlink -f .venv/bin/python)" /usr/bin/python3 /usr/local/bin/python3 \
        /usr/bin/python3.{13,12,11}; do
        if as_user "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return
        fi
    done
    cannot "no Python of 3.11 or newer outside the folders that only root may enter (apt-get install python3)"
}

copy_tree() {
    mkdir "$base/home" "$base/tmp" "$tree"
    tar -C "$root" --exclude-vcs --exclude='./.venv*' --exclude='__pycache__' --exclude='./.*_cache' \
        --exclude='./.hypothesis' --exclude='./src/*.egg-info' -cf - . | tar -C "$tree" -xf -
}

copy_environment() {
    local version source target
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    source=$root/.venv/lib/$version/site-packages
    target=$tree/.venv/lib/$version/site-packages
    if [ ! -d "$source" ]; then # another minor version: its packages are other files, from the same lock
        (cd "$tree" && PYTHON=$python ops/setup.sh)
        return
    fi
    "$python" -m venv --without-pip "$tree/.venv"
    cp -a "$source/." "$target/"
    # What names the checkout by its path: the editable install, and the script that starts homeostat.
    grep -rlF "$root" "$target" --include='*.pth' --include=direct_url.json | xargs -r sed -i "s|$root|$tree|g"
    sed "1s|.*|#!$tree/.venv/bin/python|" .venv/bin/homeostat >"$tree/.venv/bin/homeostat"
    chmod 755 "$tree/.venv/bin/homeostat"
}

clean_up() {
    local left
    left=$(pids_of "$uid")
    if [ -n "$left" ]; then
        # shellcheck disable=SC2086
        kill -KILL $left 2>/dev/null || true
    fi
    rm -rf "$base"
}

uid=
uid=$(free_uid)
[ -n "$uid" ] || cannot "every uid from 63000 to 63999 is taken"
base=$(mktemp -d /tmp/hs-user.XXXXXX) # short: a unix socket's path ends at 107 bytes
trap clean_up EXIT
trap 'exit 130' INT TERM
chmod 755 "$base"
tree=$base/tree
choose_interpreter
copy_tree
copy_environment
chown -R -h "$uid:$uid" "$base/home" "$base/tmp" "$tree"
cd "$tree"

as_user .venv/bin/python -c 'import zmq, lmdb, msgspec, psutil, prctl, homeostat' ||
    cannot "an ordinary user cannot import the packages"
echo "user tests: uid $uid, $(as_user .venv/bin/python -V) ($python)"
status=0
if [ $# -eq 0 ]; then
    as_user .venv/bin/python ops/suites.py --for-user || status=$?
else
    suites=$(as_user .venv/bin/python ops/suites.py --for-user --list)
    # shellcheck disable=SC2086 # names of folders, one a line
    as_user .venv/bin/python -m pytest -p no:cacheprovider -m "not slow" $suites "$@" || status=$?
fi

left=$(pids_of "$uid")
if [ -n "$left" ]; then
    echo "user tests: left running by the tests:" >&2
    for pid in $left; do
        printf '  %s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null || echo gone)" >&2
    done
    status=$((status == 0 ? 1 : status))
fi
exit "$status"
