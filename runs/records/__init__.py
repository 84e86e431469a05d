"""What a run remembers, as plain values: ``record`` for candidates, ``manifest`` for the run."""
