"""Explorers: one function of a few parameters, as sliders in the page and in the notebook.

`explore` evaluates ``draw`` on a grid of its parameters and packs what it returns, numeric curves
or finished pictures, into one HTML element that needs no kernel and no network. With a kernel the
same ``draw`` is called at the exact values of ordinary ipywidgets.
"""

from lib.book.explore.curves import Curves, Panel, Readout
from lib.book.explore.explorer import Explorer, explore
from lib.book.explore.parameters import Choice, Slider

__all__ = ["Choice", "Curves", "Explorer", "Panel", "Readout", "Slider", "explore"]
