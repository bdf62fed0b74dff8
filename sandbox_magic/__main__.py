"""``python -m sandbox_magic`` is the command `sandbox-magic`."""

from __future__ import annotations

import sys

from sandbox_magic.cli import main

if __name__ == "__main__":
    sys.exit(main())
