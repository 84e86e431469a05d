"""How sure a score or a difference is: ``comparisons`` first, which the others serve."""
