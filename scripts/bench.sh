#!/usr/bin/env bash
# Measures pgconvoy beside pg_dump, pg_restore and pgcopydb on this machine: docs/performance.md says what was seen.
#   scripts/bench.sh                  all data sets, 5 rounds, full size (about 10 GB of disk, some hours)
#   scripts/bench.sh --quick          a tenth of the data, one round: minutes
#   scripts/bench.sh --wan            through emulated links between two network namespaces; needs root
#   scripts/bench.sh --micro          the pieces of the data path alone, by criterion; all other arguments are its
# All other arguments go to the bench itself (`scripts/bench.sh --help`), and win over what is said here:
#   scripts/bench.sh --data pgbench --percent 30 --rounds 3 --only unverified,pgcopydb --timeline
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "$0")/setup.sh"

arguments=()
given=" $* "
quick= wan= micro=
for argument in "$@"; do
  case "$argument" in
    --quick) quick=1 ;;
    --wan) wan=1 ;;
    --micro) micro=1 ;;
    *) arguments+=("$argument") ;;
  esac
done
# Only what was not given: a flag of the caller's is never given twice.
default() { case "$given" in *" $1 "* | *" $1="*) ;; *) arguments+=("$@") ;; esac; }

set_up

if [ -n "$micro" ]; then
  exec cargo bench --locked --manifest-path tests/micro/Cargo.toml --target-dir "$target_dir" -- "${arguments[@]}"
fi

# Debian's package; other peers are measured if they are on PATH.
install_peers() {
  local packages=()
  command -v pgbench >/dev/null || ls /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1 || packages+=(postgresql-contrib)
  command -v pgcopydb >/dev/null || packages+=(pgcopydb)
  [ "${#packages[@]}" -eq 0 ] && return 0
  command -v apt-get >/dev/null || return 0
  step "installing ${packages[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}" >&2 ||
    echo 'not all peers could be installed: those that are missing are left out' >&2
}
install_peers

step "build"
cargo build --workspace --bins --release --locked

# Everything that is made lies in one folder, which the servers' unprivileged user may enter.
work="$(mktemp -d "${TMPDIR:-/tmp}/pgconvoy-bench-XXXXXX")"
chmod 755 "$work"
export TMPDIR="$work"
namespaces=()
clean_up() {
  local namespace
  for namespace in "${namespaces[@]}"; do ip netns delete "$namespace"; done
  rm -rf "$work"
}
trap clean_up EXIT

if [ -n "$quick" ]; then
  default --percent 10
  default --rounds 1
fi
if [ -n "$wan" ]; then
  [ "$(id -u)" -eq 0 ] || die "--wan makes network namespaces: it needs root"
  for end in source target; do
    ip netns add "pgconvoy-$$-$end"
    namespaces+=("pgconvoy-$$-$end")
  done
  arguments+=(--namespaces "pgconvoy-$$-source,pgconvoy-$$-target")
  default --data pgbench,mixed
  default --percent 30
  default --only unverified,migrate,pgcopydb,pipe
  case "$given" in
    *" --link "*) ;;
    *) arguments+=(--link 25/200/0 --link 25/200/0.1 --link 75/1000/0 --link 10/20/0) ;;
  esac
fi

step "measure"
"$target_dir/release/pgconvoy-bench" "${arguments[@]}"
