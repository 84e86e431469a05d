"""What is made before a run: a drafted config, seed recipes, translated configs, demo models."""
