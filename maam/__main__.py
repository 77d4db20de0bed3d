"""`python -m maam`."""

from maam.cli import main

main()
