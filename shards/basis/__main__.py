"""``python -m shards.basis``: learn the bases, or test them on held-out people."""

import sys

from shards.basis.basis import main

sys.exit(main())
