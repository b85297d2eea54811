"""``python -m mxa``."""

import sys

from mxa.cli import main

sys.exit(main())
