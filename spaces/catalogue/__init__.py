"""What merge methods there are: ``method_catalogue`` lists them, ``method`` describes one."""
