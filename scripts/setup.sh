# Sourced by the other scripts, which call `set_up`: what pgconvoy needs and this machine lacks is installed, what is there is
# left alone. Sourcing alone changes nothing.
# shellcheck shell=bash

step() { printf '\n==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# A function and not a variable: with `sudo` empty, nothing may be left in its place.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root, and there is no sudo: $*"
  fi
}

has_server() {
  local bin
  for bin in /usr/lib/postgresql/*/bin; do
    [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && [ -x "$bin/psql" ] && [ -x "$bin/pg_dump" ] && return 0
  done
  command -v initdb >/dev/null && command -v postgres >/dev/null && command -v pg_dump >/dev/null
}

# Debian packages for what is missing, one per line.
missing_packages() {
  has_server || printf '%s\n' postgresql postgresql-client
  # zstd and aws-lc, the cryptography library, are C.
  { command -v cc && command -v make; } >/dev/null || echo build-essential
  command -v xz >/dev/null || echo xz-utils
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

# Debian's package would make and start a server of its own; ours are thrown away after use.
no_default_cluster() {
  local conf=/etc/postgresql-common/createcluster.conf
  dpkg-query -W -f '${db:Status-Status}' postgresql-common 2>/dev/null | grep -q '^installed$' && return 0
  [ -e "$conf" ] && return 0
  as_root mkdir -p "${conf%/*}"
  echo 'create_main_cluster = false' | as_root tee "$conf" >/dev/null
}

install_missing() {
  local packages
  mapfile -t packages < <(missing_packages)
  [ "${#packages[@]}" -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "please install: ${packages[*]}"
  step "installing ${packages[*]}"
  no_default_cluster
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
  # The configuration file above is ours: keep it without asking.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${packages[@]}"
}

find_cargo() {
  if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  command -v cargo >/dev/null || die "Rust is missing: install it with rustup, 1.90 or newer"
}

# Leaves us at the root of the repository; sets target_dir.
set_up() {
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  target_dir="${CARGO_TARGET_DIR:-target}"
  install_missing
  find_cargo
}
