"""The candidates of a run: which is next, what it is asked, and when asking stops.

``ask_tell`` first: it hands out candidates and takes results.
"""
