"""The parts of scripts/bench and scripts/bench-delivery. Python's standard library only; Linux only."""
