"""`python -m mhrctl` is the command `mhrctl`."""

from mhrctl.cli.app import main

main()
