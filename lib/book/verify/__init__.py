"""Seven ways to check a numbered equation, each of which proves that it can fail.

Every function takes the equation's label first, evaluates the two sides on different routes,
raises :class:`CheckFailed` if the evidence fails, and otherwise shows a one-line verdict that
links back to the equation. Before it does so it runs again with a perturbed right-hand side and
insists on a rejection (:class:`CannotFail` if the perturbed formula passes), and it refuses two
sides that are the same computation (:class:`SameRoute`).

============  ==================================================================
definition    names a quantity; there is nothing to prove
symbolic      SymPy reduces the difference of the two sides to 0
numeric       both sides agree on random float64 inputs
gradient      autograd agrees with the closed form of a derivative
bound         an inequality survives random inputs and a search for its violation
monte_carlo   an estimate lies within k standard errors of the formula's value
asymptotic    a fitted order or limit agrees with the formula's
============  ==================================================================

The stored record holds only facts that are the same on every machine.
"""

from lib.book.verify._asymptotic import asymptotic
from lib.book.verify._bound import bound
from lib.book.verify._definition import definition
from lib.book.verify._monte_carlo import monte_carlo
from lib.book.verify._pointwise import gradient, numeric
from lib.book.verify._record import CannotFail, CheckFailed, Record, SameRoute
from lib.book.verify._symbolic import symbolic

__all__ = [
    "CannotFail",
    "CheckFailed",
    "Record",
    "SameRoute",
    "asymptotic",
    "bound",
    "definition",
    "gradient",
    "monte_carlo",
    "numeric",
    "symbolic",
]
