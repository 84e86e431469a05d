"""What can be searched: recipes, methods, spaces; pure Python and PyYAML."""
