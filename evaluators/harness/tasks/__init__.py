"""lm-eval's tasks: found by name, set up, and described."""
