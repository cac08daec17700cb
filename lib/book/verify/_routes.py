"""Whether the two sides of a check are the same computation in disguise.

Three questions, from the plainest to the subtlest: are they one object, do they consist of the
same code over the same values, and do they call the same function of the project on the way? The
last one is answered by watching one evaluation of each side (``sys.setprofile``). A function that
only validates or looks up (returns nothing, a flag, a size, or unchanged what it was given)
computes nothing and may be called by both.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from lib.book.verify._record import SameRoute, Subject, join

OWN_MACHINERY = ("lib.book",)
Key = tuple[Any, ...]
Shared = Sequence[str | Callable[..., Any]]


def require_different(
    subject: Subject,
    left: Callable[..., Any],
    right: Callable[..., Any],
    left_args: tuple[Any, ...],
    right_args: tuple[Any, ...],
    shared: Shared = (),
) -> tuple[str, ...]:
    """Refuse two sides that are the same computation; return the names of what they may share.

    Parameters
    ----------
    left, right : callable
        The two sides; each is evaluated once on its arguments.
    shared : sequence of str or callable
        Functions that both sides may call, as ``"lib.attention.softmax"``, as the name of a
        function of the notebook, or as the function itself.
    """
    if same_code(left, right):
        subject.fail("both sides are the same function, so they cannot disagree", SameRoute)
    allowed = {_name(item): _codes(item, left, right) for item in shared}
    home = {_module(left), _module(right)}
    seen_left, seen_right = Watch(home, allowed), Watch(home, allowed)
    try:
        seen_left.run(left, left_args)
        seen_right.run(right, right_args)
    except Exception as error:
        error.add_note(f"{subject.label}: while evaluating a side for the first time")
        raise
    common = [name for key, name in seen_left.entered.items() if key in seen_right.entered]
    if common:
        subject.fail(
            f"both sides call {join(sorted(set(common)))}, so an error in it would go unseen; "
            "compute one side without it, make its result an argument that `draw` returns, or "
            "name it in shared=(…)",
            SameRoute,
        )
    for name in allowed:
        if not (name in seen_left.used and name in seen_right.used):
            raise ValueError(f"`shared` names {name}, which the two sides do not both call")
    return tuple(allowed)


@dataclass
class Watch:
    """Record which functions of the project compute something while another one runs."""

    home: set[str]  # the modules in which the two sides are written
    allowed: dict[str, set[CodeType]]
    entered: dict[Key, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _stack: list[tuple[str, list[Any] | None]] = field(default_factory=list)
    _muted: int = 0

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        before = sys.getprofile()
        sys.setprofile(self._event)
        try:
            return function(*args)
        finally:
            sys.setprofile(before)

    def _event(self, frame: FrameType, event: str, result: Any) -> None:
        if event == "call":
            self._stack.append(self._enter(frame))
        elif event == "return" and self._stack:
            self._leave(frame, *self._stack.pop(), result)

    def _enter(self, frame: FrameType) -> tuple[str, list[Any] | None]:
        """Return the allowed name that begins here (or "") and the arguments worth keeping."""
        for name, codes in self.allowed.items():
            if frame.f_code in codes:
                self.used.add(name)
                self._muted += 1
                return name, None
        if self._muted or not self._belongs(frame.f_globals.get("__name__", "")):
            return "", None
        return "", _arguments(frame)

    def _leave(self, frame: FrameType, name: str, args: list[Any] | None, result: Any) -> None:
        if name:
            self._muted -= 1
        elif args is not None and _computes(result, args):
            module = frame.f_globals.get("__name__", "")
            outermost = frame.f_code.co_qualname.split(".<locals>.<")[0]
            self.entered[_key(frame)] = f"{module}.{outermost}"

    def _belongs(self, module: str) -> bool:
        if module.startswith(OWN_MACHINERY):
            return False
        return module == "lib" or module.startswith("lib.") or module in self.home


def visits(function: Callable[..., Any], args: tuple[Any, ...], modules: set[str]) -> bool:
    """Whether a function enters Python code of the named modules while it runs."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_globals.get("__name__", ""))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
    return not seen.isdisjoint(modules)


def _key(frame: FrameType) -> Key:
    """Tell functions apart by their code, and decorated ones also by what they wrap."""
    code, seen = frame.f_code, frame.f_locals
    return (code, *(id(seen[v]) for v in code.co_freevars if callable(seen.get(v))))


def _arguments(frame: FrameType) -> list[Any]:
    """Return the arguments of a call that begins, and what objects among them hold."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    args = [frame.f_locals[v] for v in code.co_varnames[:count] if v in frame.f_locals]
    held = [value for arg in args for value in getattr(arg, "__dict__", {}).values()]
    return args + held


def _computes(result: Any, args: list[Any]) -> bool:
    """Whether a result is a new quantity rather than a verdict, a size or an argument."""
    if result is None or isinstance(result, (bool, int, str, bytes, type, np.dtype, slice)):
        return False
    if isinstance(result, (tuple, list)):
        return any(_computes(item, args) for item in result)
    return not any(_same_value(result, arg) for arg in args)


def _same_value(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    if a is None or b is None or callable(b):
        return False
    try:
        a, b = np.asarray(_plain(a)), np.asarray(_plain(b))
        return a.dtype.kind in "biufc" and a.shape == b.shape and bool(np.array_equal(a, b))
    except (TypeError, ValueError, RuntimeError):
        return False


def _plain(value: Any) -> Any:
    return value.detach().cpu() if hasattr(value, "detach") else value


# The same code ------------------------------------------------------------------------------


def same_code(left: Any, right: Any) -> bool:
    """Whether two callables are one object, or equal code over equal names, values and defaults."""
    if left is right:
        return True
    if isinstance(left, functools.partial) and isinstance(right, functools.partial):
        return (
            same_code(left.func, right.func)
            and _all_same(left.args, right.args)
            and left.keywords.keys() == right.keywords.keys()
            and all(_same_value(v, right.keywords[k]) for k, v in left.keywords.items())
        )
    if isinstance(left, MethodType) and isinstance(right, MethodType):
        return left.__self__ is right.__self__ and same_code(left.__func__, right.__func__)
    if not (isinstance(left, FunctionType) and isinstance(right, FunctionType)):
        return False
    return (
        _equal_code(left.__code__, right.__code__)
        and _all_same(left.__defaults__ or (), right.__defaults__ or ())
        and _all_same(_cells(left), _cells(right))
        and all(
            left.__globals__.get(name) is right.__globals__.get(name)
            for name in left.__code__.co_names
        )
    )


def _equal_code(a: CodeType, b: CodeType) -> bool:
    """Equal instructions, names and constants, whatever the variables are called."""
    return (
        a.co_code == b.co_code
        and a.co_names == b.co_names
        and a.co_argcount == b.co_argcount
        and len(a.co_consts) == len(b.co_consts)
        and all(map(_equal_constant, a.co_consts, b.co_consts))
    )


def _equal_constant(a: Any, b: Any) -> bool:
    if isinstance(a, CodeType) and isinstance(b, CodeType):
        return _equal_code(a, b)
    if isinstance(a, str) and isinstance(b, str):
        return a == b or "<locals>" in a  # qualified names of inner functions
    return type(a) is type(b) and repr(a) == repr(b)


def _cells(function: FunctionType) -> tuple[Any, ...]:
    return tuple(cell.cell_contents for cell in function.__closure__ or ())


def _all_same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(map(_same_or_code, left, right))


def _same_or_code(a: Any, b: Any) -> bool:
    return _same_value(a, b) or (callable(a) and callable(b) and same_code(a, b))


# Names --------------------------------------------------------------------------------------


def _module(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__module__", None) or ""


def _name(item: str | Callable[..., Any]) -> str:
    if isinstance(item, str):
        return item
    if not callable(item):
        raise TypeError(f"`shared` must hold names or functions, got {item!r}")
    return f"{item.__module__}.{item.__qualname__}"


def _codes(item: str | Callable[..., Any], *sides: Callable[..., Any]) -> set[CodeType]:
    """Return the code of a function, or of all methods of a class, given itself or its name."""
    found = _find(item, sides) if isinstance(item, str) else item
    if isinstance(found, type):
        return {m.__code__ for m in vars(found).values() if isinstance(m, FunctionType)}
    found = getattr(found, "__wrapped__", found)
    code = getattr(getattr(found, "__func__", found), "__code__", None)
    if code is None:
        raise ValueError(f"`shared` must name functions of the project, got {item!r}")
    return {code}


def _find(name: str, sides: Sequence[Callable[..., Any]]) -> Any:
    """Look a name up among what the two sides see, then by import."""
    for side in sides:
        if isinstance(side, FunctionType):
            inner = dict(zip(side.__code__.co_freevars, _cells(side), strict=True))
            visible = {**side.__globals__, **inner}
            if name in visible and not isinstance(visible[name], ModuleType):
                return visible[name]
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"`shared` names {name!r}, which cannot be found") from error
