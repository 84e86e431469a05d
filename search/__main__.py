"""``python -m search``: the same as the ``search`` command."""

from search.cli.app import main

if __name__ == "__main__":
    main()
