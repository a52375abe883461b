"""`python -m mhrctl`."""

from mhrctl.cli.app import main

main()
