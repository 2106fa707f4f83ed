#!/usr/bin/env bash
# Builds the load simulator if needed and runs it (`ingestor produce`); arguments are passed on, --help lists them.
# The binary reads the environment and .env itself.
set -euo pipefail
# The repository root is where .env and ./log are.
cd "$(dirname "$0")/.."

if command -v cargo >/dev/null 2>&1; then
    # cargo replaces itself with the program, so signals reach it directly.
    exec cargo run --release --locked --quiet --bin ingestor -- produce "$@"
fi
if [ -x target/release/ingestor ]; then
    echo "run_producer: cargo is missing, running the binary as it was last built" >&2
    exec target/release/ingestor produce "$@"
fi
echo "run_producer: cargo is missing and nothing has been built: install Rust and open a new shell" >&2
exit 1
