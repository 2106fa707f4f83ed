//! The `ingestor` command.

fn main() {}
