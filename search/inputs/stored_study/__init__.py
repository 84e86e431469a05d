"""A study that a command was given: its place, its config by now, and whether it is trusted."""
