# Shared by the scripts beside it; sourced, never run.
#
# Owns: where the tree and its build products are, how the scripts speak, and how they wait.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
BIN=$TARGET/release
GUEST_DIR=$TARGET/guest

# The script that sourced this file, as messages name it.
SELF=$(basename "$0")

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "$SELF" "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps mkfs and its like where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

# Milliseconds since some fixed moment, without starting a process.
now_ms() {
    local t=${EPOCHREALTIME/[.,]/}
    printf '%s' "$((t / 1000))"
}

# wait_for SECONDS WHAT COMMAND...: tries COMMAND until it succeeds; dies naming WHAT if it never does.
wait_for() {
    local limit_s=$1 what=$2 deadline
    shift 2
    deadline=$(($(now_ms) + limit_s * 1000))
    until "$@"; do
        [ "$(now_ms)" -lt "$deadline" ] || die "waited $limit_s s for $what, in vain"
        sleep 0.1
    done
}
