"""Plans run: into a resident model, as a stream of tensors, or to a folder. ``build`` first."""
