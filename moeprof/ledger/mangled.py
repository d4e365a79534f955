"""Names of kernels whose types are too long for the demangler that wrote the record.

``__cxa_demangle`` gives up on names that need more than its fixed number of steps; CUTLASS kernels
do, and keep their mangled name. The part of the Itanium C++ ABI that such names use is read here:
nested names, templates with packs, literals, pointers, qualifiers and substitutions. Function
types, expressions and operators are left out: a name with any of them is not understood.
"""

from __future__ import annotations

from moeprof.errors import RecordError

_BUILTIN = {
    **{"v": "void", "b": "bool", "c": "char", "a": "signed char", "h": "unsigned char"},
    **{"s": "short", "t": "unsigned short", "i": "int", "j": "unsigned int", "l": "long"},
    **{"m": "unsigned long", "x": "long long", "y": "unsigned long long", "w": "wchar_t"},
    **{"f": "float", "d": "double", "e": "long double"},
}
_SUFFIX = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}
_AROUND = {"P": "*", "R": "&", "O": "&&", "K": " const", "V": " volatile"}
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of a substitution's number, base 36
DEEPEST = 200  # levels of nesting; the longest CUTLASS name seen has 14
LONGEST = 50_000  # characters of any part, which references can double again and again


def demangled(name: str) -> str | None:
    """``name`` of a function without its parameters; as it is if not mangled.

    None if the name is damaged or of a form that is not understood.
    """
    if not name.startswith("_Z"):
        return name
    try:
        return _Reader(name).function_name()
    except (RecordError, IndexError):
        return None


class _Reader:
    """Reads one name from the left. seen: what S_, S0_, S1_... stand for."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, len("_Z"), 0
        self.seen: list[str] = []

    def function_name(self) -> str:
        return self._nested(function=True) if self._take("N") else self._unnested(function=True)

    def _take(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        self.at += len(token) * found
        return found

    def _refuse(self) -> RecordError:
        return RecordError(f"{self.text[self.at : self.at + 20]!r}", "a mangled name")

    def _down(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._refuse()

    def _keep(self, what: str) -> str:
        if len(what) > LONGEST:
            raise self._refuse()
        self.seen.append(what)
        return what

    def _nested(self, function: bool = False) -> str:
        """N prefixes E. Every prefix can be referred to later; a function's full name cannot."""
        whole = ""
        while not self._take("E"):
            if self._take("S"):
                whole = self._substitution()
                continue
            if self._take("I"):
                whole += self._arguments()
            else:
                whole = f"{whole}::{self._source_name()}" if whole else self._source_name()
            if not (function and self.text[self.at] == "E"):
                self._keep(whole)
        return whole

    def _unnested(self, function: bool = False) -> str:
        """A name outside any namespace, or in std, with its template arguments."""
        whole = f"std::{self._source_name()}" if self._take("St") else self._source_name()
        if self.text[self.at : self.at + 1] == "I" or not function:
            self._keep(whole)
        if self._take("I"):
            whole += self._arguments()
            if not function:
                self._keep(whole)
        return whole

    def _source_name(self) -> str:
        length = self._number()
        begin, self.at = self.at, self.at + length
        if not length or self.at > len(self.text):
            raise self._refuse()
        return self.text[begin : self.at]

    def _number(self) -> int:
        begin = self.at
        while self.text[self.at] in "0123456789":
            self.at += 1
        if not 0 < self.at - begin < 10:
            raise self._refuse()
        return int(self.text[begin : self.at])

    def _substitution(self) -> str:
        """What follows S: t, _ or a base-36 number and _."""
        if self._take("t"):
            return "std"
        end = self.text.find("_", self.at)
        digits = self.text[self.at : end]
        if end < 0 or any(digit not in _DIGITS for digit in digits):
            raise self._refuse()
        self.at = end + 1
        return self.seen[int(digits, 36) + 1 if digits else 0]

    def _arguments(self) -> str:
        return f"<{', '.join(self._list())}>"

    def _list(self) -> list[str]:
        """Template arguments up to E; those of a pack are in line."""
        self._down()
        found: list[str] = []
        while not self._take("E"):
            if self._take("J"):
                found += self._list()
            else:
                found.append(self._literal() if self._take("L") else self._type())
        self.depth -= 1
        return found

    def _literal(self) -> str:
        code = self.text[self.at]
        kind = self._type()
        sign = "-" if self._take("n") else ""
        value = f"{sign}{self._number()}"
        if not self._take("E"):
            raise self._refuse()
        if kind == "bool":
            return {"0": "false", "1": "true"}.get(value, value)
        return f"{value}{_SUFFIX[code]}" if code in _SUFFIX else f"({kind}){value}"

    def _type(self) -> str:
        code = self.text[self.at]
        if code in "0123456789" or self.text.startswith("St", self.at):
            return self._unnested()
        self.at += 1
        if code in _BUILTIN:
            return _BUILTIN[code]
        if code in _AROUND:
            self._down()
            whole = self._keep(self._type() + _AROUND[code])
            self.depth -= 1
            return whole
        if code == "N":
            return self._nested()
        if code == "S":
            return self._referred()
        raise self._refuse()

    def _referred(self) -> str:
        """An earlier type, perhaps a template that now gets its arguments."""
        whole = self._substitution()
        return self._keep(whole + self._arguments()) if self._take("I") else whole
