"""`python -m benchmarks`: see `benchmarks.command`."""

from __future__ import annotations

import sys

from benchmarks.process import restart_with_settings

if __name__ == "__main__":
    restart_with_settings()
    from benchmarks.command import main

    sys.exit(main(sys.argv[1:]))
