"""J1 with mlinfer and scikit-learn itself, in place of the compiled form."""

import sys
from pathlib import Path

from mlinfer_j1 import main

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), how="never")
