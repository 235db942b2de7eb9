"""`python -m kizu`: the command `kizu`."""

from kizu.apps.cli import main

if __name__ == "__main__":
    main()
