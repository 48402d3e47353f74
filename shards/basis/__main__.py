"""``python -m shards.basis``: learn the bases, or prove them on people left out."""

import sys

from shards.basis.basis import main

sys.exit(main())
