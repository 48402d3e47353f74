"""``python -m headstart``."""

import sys

from headstart import main

sys.exit(main())
