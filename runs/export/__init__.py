"""Recipes and model cards for use elsewhere."""
