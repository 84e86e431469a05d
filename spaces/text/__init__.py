"""Text of unknown origin, made fit to be shown and kept: errors, terminals, YAML, passwords."""
