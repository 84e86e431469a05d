"""A search from start to end: ``driver`` starts it, ``session`` holds it, ``loop`` is it."""
