# A cluster of real daemons for scripts; sourced after lib.sh, never run.
#
# Owns: the processes whose command line names a folder under $CLUSTER_DIR. It looks for them in /proc by
# that folder, so that it never signals a process of anything else, and finds them even where a pid file
# is missing or stale.

# Daemons must not inherit what a script keeps open (8: a guest's console).
levee() { LEVEE_CLUSTER=http://127.0.0.1:$BASE_PORT "$BIN/levee" "$@" 8>&-; }

need_binaries() {
    local name
    for name in levee levee-metad levee-stored; do
        [ -x "$BIN/$name" ] || die "$name is not built; run: make build"
    done
}

# Prints "PID PROGRAM FOLDER" of every daemon of this cluster.
cluster_daemons() {
    local file pid program argument previous
    for file in /proc/[0-9]*/cmdline; do
        pid=${file#/proc/}
        pid=${pid%/cmdline}
        program='' previous=''
        while IFS= read -r -d '' argument; do
            [ -n "$program" ] || program=${argument##*/}
            if [[ $program == levee-@(metad|stored) && $previous == --dir && $argument == "$CLUSTER_DIR"/* ]]; then
                printf '%s %s %s\n' "$pid" "$program" "$argument"
            fi
            previous=$argument
        done 2>/dev/null <"$file" || true
    done
}

daemon_pid() { cluster_daemons | awk -v folder="$CLUSTER_DIR/$1" '$3 == folder { print $1; exit }'; }

kill_daemon() {
    local pid
    pid=$(daemon_pid "$1")
    [ -n "$pid" ] || die "$1 is not running; see $CLUSTER_DIR/log"
    kill -KILL "$pid"
}

first_node_except() {
    local node
    for node in node-1 node-2 node-3; do
        [ "$node" = "$1" ] || break
    done
    printf '%s' "$node"
}

# For whoever reads about a failure: what the cluster says of itself, and the last words of its daemons.
cluster_state() {
    local log
    [ -d "$CLUSTER_DIR" ] || return 0
    say "The cluster's state:"
    timeout 10 "$BIN/levee" --cluster "http://127.0.0.1:$BASE_PORT" status 2>&1 | head -n 40
    for log in "$CLUSTER_DIR"/log/*.log; do
        [ -s "$log" ] || continue
        say "The end of $log:"
        tail -n 8 "$log"
    done
}

# Ends the cluster, if there is one, the hard way if need be.
cluster_down() {
    local pid
    [ -d "$CLUSTER_DIR" ] || return 0
    levee down --dir "$CLUSTER_DIR" >/dev/null 2>&1 || true
    cluster_daemons | while read -r pid _; do
        kill -KILL "$pid" 2>/dev/null || true
    done
}
