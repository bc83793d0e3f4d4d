"""The code behind an environment, as digests: edited between a save and a resume, it is told.

Of every class its functions count, those that they call in modules of the same package or of the
user, and the plain values of classes and modules that they read. Comments, docstrings and places in
files do not. Nothing of the code runs.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .nodes import bases_of, dictionary_of, module_of

_CODE = "the code of "
_PLACES = (" of the class ", " of the module ")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_NOTES = ("metadata", "render_mode", "spec", "reward_range")  # what classes tell of themselves
_TALK = ("gymnasium.logger", "gymnasium.utils")  # what they say, and how it is coloured
_MOST_FUNCTIONS = 3000
_MOST_ITEMS = 1000  # of a container of plain values
_MOST_BYTES = 1 << 20  # of an array, a text or bytes
_MOST_KEPT = 300  # classes and functions whose code is remembered
# Another Python compiles the same source to other code, which says nothing.
_TAG = f"{importlib.util.MAGIC_NUMBER.hex()}{sys.flags.optimize}"
_CLASS_DICT = type.__dict__["__dict__"].__get__
_QUALIFIED_NAME = type.__dict__["__qualname__"].__get__
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")

# Remembered: the object (so that its id stays taken), its digests, and where its plain values stand.
_known: dict[int, tuple[Any, dict[str, str], list[tuple[str, Mapping[str, Any], str]]]] = {}


def code_behind(value: Any, label: str) -> Iterator[tuple[str, str]]:
    """The code of a class or a function, and the plain values that it reads, by name.

    Parameters
    ----------
    value
        A class or a function; of another object there is nothing to tell.
    label
        What messages call a function; classes have their own name.
    """
    if id(value) not in _known:
        walk = _Walk()
        if isinstance(value, type):
            walk.add_class(value)
        else:
            walk.add_named_function(value, label)
        if len(_known) >= _MOST_KEPT:
            _known.clear()
        _known[id(value)] = (value, walk.digests, walk.places)
    _, digests, places = _known[id(value)]
    yield from digests.items()
    for name, holder, key in places:
        text = _plain_text(holder.get(key))
        if text is not None:
            yield name, text


def is_of_code(name: str) -> bool:
    """Whether a name of a configuration is one of `code_behind`.

    Parameters
    ----------
    name
        As in `configuration_of`.
    """
    return name.startswith(_CODE) or any(place in name for place in _PLACES)


def code_differs(name: str, here: str | None, saved: str) -> str | None:
    """A clause about code that is not what it was; None where it is, or where nobody can tell.

    Parameters
    ----------
    name
        One of `code_behind`.
    here, saved
        What it is now, and what it was.
    """
    if here == saved:
        return None
    if not name.startswith(_CODE):
        return f"{name} is {here or 'missing'} now and was {saved} when it was saved"
    if here is not None and here.partition(" ")[0] != saved.partition(" ")[0]:
        return None
    return f"{name} has changed since it was saved"


class _Walk:
    """Collects the digests of classes, and of all functions that belong to them."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.places: list[tuple[str, Mapping[str, Any], str]] = []
        self._classes: dict[int, type] = {}
        self._seen: dict[int, Any] = {}  # functions of the digest in the making
        self._placed: set[str] = set()
        self._left = _MOST_FUNCTIONS

    def add_class(self, cls: type) -> None:
        """A class and its bases, but for those of Python and NumPy."""
        for base in bases_of(cls):
            if id(base) in self._classes or _is_pythons(module_of(base)):
                continue
            self._classes[id(base)] = base
            self._seen = {}
            digest = hashlib.sha256()
            found = False
            short = _QUALIFIED_NAME(base)
            attributes = _CLASS_DICT(base)
            for name in sorted(filter(_is_name, attributes)):
                value = attributes[name]
                functions = list(_functions_in(value))
                for function in functions:
                    digest.update(name.encode(errors="replace"))
                    self._add_function(function, digest)
                    found = True
                if not functions:
                    self._place(f"{name} of the class {short}", attributes, name)
            if found:
                self.digests.setdefault(f"{_CODE}{short}", f"{_TAG} {digest.hexdigest()[:16]}")

    def add_named_function(self, value: Any, label: str) -> None:
        """A function that stands in an attribute."""
        digest = hashlib.sha256()
        found = False
        for function in _functions_in(value):
            self._add_function(function, digest)
            found = True
        if found:
            self.digests[f"{_CODE}{label}"] = f"{_TAG} {digest.hexdigest()[:16]}"

    def _add_function(self, function: types.FunctionType, digest: Any) -> None:
        """The code of a function, and of those that it refers to, each once."""
        if id(function) in self._seen or self._left <= 0:
            return
        self._seen[id(function)] = function
        self._left -= 1
        code = function.__code__
        _add_code(code, function.__doc__, digest)
        for values in (function.__defaults__, function.__kwdefaults__):
            self._add_value(values, function, digest)
        for cell in function.__closure__ or ():
            try:
                self._add_value(cell.cell_contents, function, digest)
            except ValueError:  # nothing in it yet
                continue
        home = str(function.__module__)
        for name, value in _globals_of(function):
            if isinstance(value, types.ModuleType):
                inside = vars(value)
                for part in sorted(set(_names_in(code)) & inside.keys()):
                    self._add_global(part, inside, value.__name__, function, digest)
            else:
                self._add_global(name, function.__globals__, home, function, digest)

    def _add_global(
        self, name: str, holder: Mapping[str, Any], home: str, by: types.FunctionType, digest: Any
    ) -> None:
        value = holder[name]
        functions = list(_functions_in(value))
        for function in functions:
            if _belongs(function, by):
                digest.update(name.encode(errors="replace"))
                self._add_function(function, digest)
        if not functions and not home.startswith(_TALK):
            self._place(f"{name} of the module {home}", holder, name)

    def _add_value(self, value: Any, by: types.FunctionType, digest: Any) -> None:
        text = _plain_text(value)
        if text is not None:
            digest.update(text.encode(errors="replace"))
            return
        for function in _functions_in(value):
            self._add_function(function, digest)

    def _place(self, name: str, holder: Mapping[str, Any], key: str) -> None:
        if key.startswith("__") or key in _NOTES or holder[key] is None or name in self._placed:
            return
        if _plain_text(holder[key]) is not None:
            self._placed.add(name)
            self.places.append((name, holder, key))


def _is_name(name: Any) -> bool:
    return type(name) is str and name not in ("__doc__", "__module__", "__qualname__", "__dict__")


def _functions_in(value: Any) -> Iterator[types.FunctionType]:
    """The Python functions of an attribute: its own, of a property, of what is wrapped."""
    kind = type(value)
    if kind is types.FunctionType:
        yield value
    elif kind in (staticmethod, classmethod, types.MethodType):
        yield from _functions_in(value.__func__)
    elif kind is property:
        for function in (value.fget, value.fset, value.fdel):
            yield from _functions_in(function)
    elif kind is functools.cached_property or kind is functools.partial:
        yield from _functions_in(value.func)
    elif kind is type(_cached):
        yield from _functions_in(value.__wrapped__)
    elif not isinstance(kind, type) or _is_pythons(module_of(kind)):
        return
    elif (compiled := (dictionary_of(value) or {}).get("py_func")) is not None:
        yield from _functions_in(compiled)  # of numba


@functools.lru_cache(maxsize=1)
def _cached() -> None:
    """Of the type of all cached functions."""


def _globals_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals that a function reads and whose code or values may count."""
    known = function.__globals__
    names = {
        name
        for name in _names_in(function.__code__)
        if name in known and _may_count(known[name], function)
    }
    if names:
        loaded = set(_loaded_globals(function.__code__))
        for name in sorted(names & loaded):
            yield name, known[name]


def _may_count(value: Any, by: types.FunctionType) -> bool:
    if isinstance(value, types.ModuleType):
        file = getattr(value, "__file__", None)
        same = str(value.__name__).partition(".")[0] == str(by.__module__).partition(".")[0]
        return type(file) is str and (same or not _is_of_a_library(file))
    if isinstance(value, type):
        return False
    return _plain_text(value) is not None or any(_belongs(f, by) for f in _functions_in(value))


def _belongs(function: types.FunctionType, by: types.FunctionType) -> bool:
    """Whether a function is of the same package as another one, or of the user."""
    same = str(function.__module__).partition(".")[0] == str(by.__module__).partition(".")[0]
    return same or not _is_of_a_library(function.__code__.co_filename)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _loaded_globals(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _LOADS:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _loaded_globals(constant)


def _add_code(code: types.CodeType, doc: str | None, digest: Any) -> None:
    """What a function does, without its place and its docstring."""
    digest.update(code.co_code)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags)
    digest.update(f"{code.co_name}{names}{counts}".encode(errors="replace"))
    for k, constant in enumerate(code.co_consts):
        if isinstance(constant, types.CodeType):
            inner = constant.co_consts[0] if constant.co_consts else None
            _add_code(constant, inner if isinstance(inner, str) else None, digest)
        elif not (k == 0 and doc is not None and constant == doc):
            digest.update(_constant_text(constant).encode(errors="replace"))


def _constant_text(value: Any) -> str:
    """A constant of the compiler; sets have no order of their own."""
    if isinstance(value, frozenset):
        return f"set {sorted(map(_constant_text, value))}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant_text, value))})"
    if type(value) is int:
        return hex(value)
    return f"{type(value).__name__} {value!r}"


def _plain_text(value: Any) -> str | None:
    """A plain value as a short text; None for another one, for what is large, and for paths."""
    kind = type(value)
    if kind in (str, bytes) and len(value) > _MOST_BYTES:
        return None
    if kind in _PLAIN:
        text = hex(value) if kind is int and value.bit_length() > 64 else repr(value)
        if kind is str and ("/" in value or "\\" in value):
            return None
        return text if len(text) <= 40 else f"{text[:20]}... ({short_digest(text.encode())})"
    if kind is np.ndarray:
        if value.dtype.kind not in "fiubcSU" or value.nbytes > _MOST_BYTES:
            return None
        shape = "x".join(map(str, value.shape))
        return f"an array of {shape} {value.dtype} ({short_digest(value.tobytes())})"
    if kind in (tuple, list, dict, set, frozenset) and len(value) <= _MOST_ITEMS:
        return _items_text(value, kind)
    return None


def _items_text(value: Any, kind: type) -> str | None:
    items = [*value.keys(), *value.values()] if kind is dict else list(value)
    texts: list[str] = []
    for item in items:
        text = _plain_text(item) if type(item) in (*_PLAIN, tuple, list) else None
        if text is None:
            return None
        texts.append(text)
    if kind in (set, frozenset):
        texts.sort()
    whole = f"{kind.__name__} of {', '.join(texts)}"
    return whole if len(whole) <= 60 else f"{whole[:40]}... ({short_digest(whole.encode())})"


def short_digest(content: bytes) -> str:
    """Return 16 hexadecimal digits that stand for some bytes.

    Parameters
    ----------
    content
        The bytes.
    """
    return hashlib.sha256(content).hexdigest()[:16]


def _is_pythons(module: str) -> bool:
    return module.partition(".")[0] in (*_standard_names(), "numpy", "builtins", "")


@functools.lru_cache(maxsize=1)
def _standard_names() -> frozenset[str]:
    return frozenset(sys.stdlib_module_names) - {"__main__"}


@functools.lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_of_a_library(file: str) -> bool:
    return "site-packages" in file or file.startswith(("<frozen", *_library_folders()))
