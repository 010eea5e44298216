"""Figures, animations and the HTML report of a study directory. Nothing statistical is computed here."""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", None)) is not None:
    # Importing matplotlib fails where MPLBACKEND, of a notebook, say, names a backend that is not installed here. Our
    # figures need none; whoever draws others beside them gets the one asked for.
    import matplotlib

    os.environ["MPLBACKEND"] = _backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
