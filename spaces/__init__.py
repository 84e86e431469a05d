"""What can be searched: recipes, methods, spaces. Needs nothing but the standard library and PyYAML."""
