"""The bounds of a search: ``space`` is the whole of them, the other modules are its parts."""
