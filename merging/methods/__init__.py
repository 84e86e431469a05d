"""The arithmetic of the merge methods on one tensor: ``method_registry`` has all by name."""
