"""Run the command line with `python -m napari_strata.cli`."""

import sys

from napari_strata.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
