#!/usr/bin/env bash
# Builds the ingestor if needed and runs it (`ingestor serve`); arguments are passed on.
# The binary reads the environment and .env itself. Ctrl-C drains and stops it.
set -euo pipefail
# The repository root is where .env, ./data and ./log are.
cd "$(dirname "$0")/.."

if command -v cargo >/dev/null 2>&1; then
    # cargo replaces itself with the program, so signals reach it directly.
    exec cargo run --release --locked --quiet --bin ingestor -- serve "$@"
fi
if [ -x target/release/ingestor ]; then
    echo "run_ingestor: cargo is missing, running the binary as it was last built" >&2
    exec target/release/ingestor serve "$@"
fi
echo "run_ingestor: cargo is missing and nothing has been built: install Rust and open a new shell," >&2
echo "or run it in Docker: docker compose up --build" >&2
exit 1
