# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What spiceflow's scripts share: where things are, how they speak.
# To be sourced by bash with `set -euo pipefail`; PROG is the caller's name.

PROG=${PROG:-${0##*/}}
TOP=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
export TOP

# Sources and builds live here, shared by all checkouts on the machine.
CACHE=${SPICEFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spiceflow}

# The QEMU series that is built and used when nothing else is asked for.
DEFAULT_QEMU=10.0

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' PLAIN=''
fi
export BOLD DIM RED GREEN PLAIN

# die TEXT...: one line that says what is wrong and what to do
die() {
    printf '%s: %s%s%s\n' "$PROG" "$RED" "$*" "$PLAIN" >&2
    exit 1
}

# say TEXT...: one line of progress
say() {
    printf '%s\n' "$*"
}

# done_line LABEL DETAIL: a finished step
done_line() {
    printf '%s*%s %-22s %s%s%s\n' "$GREEN" "$PLAIN" "$1" "$DIM" "$2" "$PLAIN"
}

# qemu_home SERIES|SOURCE_FOLDER: the cache folder that holds build/ (and
# src/, for a series) of that QEMU
qemu_home() {
    local what=$1 sum

    case $what in
    */*|.|..)
        what=$(cd "$what" 2>/dev/null && pwd -P) ||
            die "$1: no such folder"
        sum=$(printf '%s' "$what" | cksum)
        printf '%s/qemu-src-%s\n' "$CACHE" "${sum%% *}"
        ;;
    *)
        printf '%s/qemu-%s\n' "$CACHE" "$what"
        ;;
    esac
}

# show_progress LABEL: stdin's lines as one line that changes in place on a
# terminal, as a line per tenth otherwise.  Understands "[3/120] text".
show_progress() {
    local label=$1 line text tenth=0 pct width=80

    if [ -t 1 ]; then
        width=$(tput cols 2>/dev/null) || width=80
    fi
    while IFS= read -r line || [ -n "$line" ]; do
        text=$line
        pct=
        if [[ $line =~ ^\[([0-9]+)/([0-9]+)\]\ *(.*)$ ]]; then
            pct=$((100 * BASH_REMATCH[1] / BASH_REMATCH[2]))
            text=${BASH_REMATCH[3]}
        fi
        if [ -t 1 ]; then
            printf -v text '  %-22s %s%s' "$label" "${pct:+$pct% }" "$text"
            text=${text//[[:cntrl:]]/ }
            printf '\r\e[K%s' "${text:0:width-1}"
        elif [ -n "$pct" ] && [ $((pct / 10)) -gt "$tenth" ]; then
            tenth=$((pct / 10))
            printf '  %-22s %d%%\n' "$label" "$pct"
        fi
    done
    if [ -t 1 ]; then
        printf '\r\e[K'
    fi
}

# run LABEL COMMAND...: run it, everything it says into $LOG, progress shown.
# When it fails the last lines that matter are shown; the status is its own.
run() {
    local label=$1 start=$SECONDS from status=0
    shift

    printf '\n# %s\n$ %s\n' "$label" "$*" >>"$LOG"
    from=$(wc -l <"$LOG")
    if [ ! -t 1 ]; then
        printf '  %-22s ...\n' "$label"
    fi
    { "$@" </dev/null 2>&1 | tee -a "$LOG" | show_progress "$label"; } ||
        status=$?
    if [ "$status" -ne 0 ]; then
        tail -n +$((from + 1)) "$LOG" | important_lines >&2
        return "$status"
    fi
    done_line "$label" "$((SECONDS - start)) s"
}

# important_lines: of a log on stdin, what a reader wants to see first
important_lines() {
    awk '/^graft: |error:|ERROR|^E: |FAILED:|No space left|: warning:/ {
             if (!seen[$0]++ && n++ < 12) { print "  " substr($0, 1, 200) }
         }
         { last[NR % 5] = $0 }
         END {
             if (n) { exit }
             for (i = NR - 4; i <= NR; i++) {
                 if (i > 0) { print "  " substr(last[i % 5], 1, 200) }
             }
         }'
}
