#!/bin/bash
# What the tests want and the program itself doesn't need: everyday programs for tests/compatibility, a PostgreSQL
# server. As root installs what is missing, and is done at once when nothing is; else prints the command that would.
#
# A program counts as there when it is on the path of sandboxed commands. `--list` only names what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=/usr/local/bin:/usr/bin:/bin

missing=()
while read -r program package optional; do
    case $program in
        '' | '#'*) continue ;;
        */*) compgen -G "$program" >/dev/null && continue ;;
        *) command -v "$program" >/dev/null && continue ;;
    esac
    [ -n "$optional" ] || missing+=("$package")
done <tests/compatibility/programs.txt

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${missing[@]}"
    exit 0
fi
command=(apt-get install -y --no-install-recommends "${missing[@]}")
if ! command -v apt-get >/dev/null; then
    echo "test programs: missing, by Debian's names: ${missing[*]}; the tests that need them are skipped" >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    echo "test programs: missing; the tests that need them are skipped. To install them: sudo ${command[*]}" >&2
    exit 1
fi
echo "test programs: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
"${command[@]}" >/dev/null
