"""Models as they lie on disk: ``checkpoint`` opens one, ``compatibility`` compares several."""
