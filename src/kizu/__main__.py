"""`python -m kizu`: the command `kizu`."""

from kizu.apps.cli import main

main()
