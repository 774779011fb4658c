"""Run the command line as ``python -m luckyfast``."""

import sys

from luckyfast.cli import main

sys.exit(main())
