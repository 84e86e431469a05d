"""The merge methods: ``method_catalogue`` lists them, ``merge_method`` makes one of a function."""
