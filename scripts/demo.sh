#!/usr/bin/env bash
# Shows the whole product on this machine: two throw-away PostgreSQL servers, both agents, a migration, its proof.
# Works on a fresh Debian or Ubuntu with Rust. scripts/demo.sh --keep leaves it running to look at.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "$0")/setup.sh"
set_up

step "build"
cargo build --workspace --bins --release --locked

step "demo"
exec "$target_dir/release/pgconvoy" demo "$@"
