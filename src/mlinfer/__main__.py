"""`python -m mlinfer` is `mlinfer`."""

import sys

from mlinfer._cli import main

if __name__ == "__main__":  # a worker process imports this module, too
    sys.exit(main())
