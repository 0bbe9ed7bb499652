#!/usr/bin/env bash
# Everything that must hold: format, lints, build, all tests. Works on a fresh Debian or Ubuntu with Rust.
# Arguments go to the tests: scripts/test.sh kill::
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "$0")/setup.sh"
# shellcheck source=scripts/majors.sh
. "$(dirname "$0")/majors.sh"
set_up
fetch_majors

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

step "build"
cargo build --workspace --locked

# Every end-to-end test has two PostgreSQL servers and three processes of ours, and waits for some of them now and then.
cores="$(nproc 2>/dev/null || echo 2)"
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((cores > 7 ? 8 : cores + 1))}"

step "tests, $RUST_TEST_THREADS at a time"
cargo test --workspace --locked -- "$@"

step "all passed"
