# SPDX-License-Identifier: MIT
"""`python -m pyvnet`: the same program as the `pyvnet` script."""

import sys

from pyvnet.daemon.cli import main

if __name__ == "__main__":
    sys.exit(main())
