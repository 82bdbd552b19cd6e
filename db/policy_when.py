"""From the `when` of a rule to its condition, with everything that is wrong noted by field path. Pure.

{score: Porn, at_least: 0.85} · {sum: [Porn, Hentai], above: 0.5} · {bank: NAME} · {bank_kind: block, within: 20}
{fact: short_side, below: 200} · {fact: format, in: [gif]} · {tag: dress, group: category, at_least: 0.5}
{category_mismatch: 0.3} · {category: [dress]} · {context: [avatar]} · {account: [acme]}
{all: […]} · {any: […]} · {not: {…}}
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from db.policy_conditions import BOUNDS, Band, BankHit, CategoryMismatch, Fact, FactWord, Named, Score, Tag
from db.policy_evidence import NUMBERS, WORDS
from db.policy_logic import All, AnyOf, Condition, Not
from db.policy_rules import PolicyFault

MAX_DEPTH: Final = 8
MAX_PARTS: Final = 100
MAX_NAME: Final = 200
BITS: Final = 256
MAX_FACT: Final = 1e12
KINDS: Final = ("block", "allow")
Path = tuple[str | int, ...]


class Faults:
    """What is wrong so far; at most 100."""

    def __init__(self) -> None:
        self.found: list[PolicyFault] = []
        self.paths: list[Path] = []

    def add(self, path: Path, detail: str) -> None:
        if len(self.found) < 100:
            self.found.append(PolicyFault(shown(path), detail))
            self.paths.append(path)

    def unknown(self, value: Mapping[str, Any], known: Collection[str], path: Path) -> None:
        for name in value:
            if name not in known:
                self.add((*path, str(name)[:MAX_NAME]), f"unknown field; there is {', '.join(known)}")


def shown(path: Path) -> str:
    """A field path as people write it: rules[2].when.score."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def condition(when: object, path: Path, faults: Faults, depth: int = 1) -> Condition | None:
    """The condition, or None with what is wrong in `faults`."""
    if not isinstance(when, Mapping) or not when:
        faults.add(path, f"must be an object that names one of {', '.join(READERS)}")
        return None
    named = [name for name in READERS if name in when]
    if len(named) != 1 and named != ["bank", "bank_kind"] and named != ["category_mismatch"]:
        what = "names none" if not named else f"names {' and '.join(named)}: take one, or `all`"
        faults.add(path, f"{what} of {', '.join(READERS)}" if not named else what)
        return None
    if named[0] in ("all", "any", "not"):
        return _composed(named[0], when, path, faults, depth)
    before = len(faults.found)
    made = READERS[named[0]](when, path, faults)
    return made if len(faults.found) == before else None


def number(value: object, path: Path, lowest: float, highest: float, faults: Faults) -> float:
    """The value, if it is a number within these limits (NaN is none)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not lowest <= value <= highest:
        faults.add(path, f"must be a number from {lowest:g} to {highest:g}")
        return lowest
    return value


def is_class(value: object) -> bool:
    """Whether a class, label, group, bank or account could have this name."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_NAME and value.isprintable()


def _composed(kind: str, when: Mapping[str, Any], path: Path, faults: Faults, depth: int) -> Condition | None:
    faults.unknown(when, (kind,), path)
    inner = (*path, kind)
    if depth >= MAX_DEPTH:
        faults.add(inner, f"conditions are nested at most {MAX_DEPTH} deep")
        return None
    if kind == "not":
        part = condition(when[kind], inner, faults, depth + 1)
        return None if part is None else Not(part)
    parts = when[kind]
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        faults.add(inner, f"must be a list of 1 to {MAX_PARTS} conditions")
        return None
    made = [condition(each, (*inner, number_), faults, depth + 1) for number_, each in enumerate(parts)]
    whole = tuple(part for part in made if part is not None)
    return All(whole) if kind == "all" else AnyOf(whole)


def _score(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition:
    faults.unknown(when, ("score", *BOUNDS), path)
    return Score((_name(when["score"], (*path, "score"), faults),), _band(when, path, 0, 1, faults))


def _sum(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition:
    faults.unknown(when, ("sum", *BOUNDS), path)
    labels = _names(when["sum"], (*path, "sum"), faults)
    if len(labels) == 1:
        faults.add((*path, "sum"), "names at least two classes")
    return Score(labels, _band(when, path, 0, max(1, len(labels)), faults))


def _bank(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition:
    faults.unknown(when, ("bank", "bank_kind", "within"), path)
    bank = _name(when["bank"], (*path, "bank"), faults) if "bank" in when else None
    kind = when.get("bank_kind")
    if kind is not None and kind not in (*KINDS, "any"):
        faults.add((*path, "bank_kind"), "must be block, allow or any")
    within = None
    if "within" in when:
        within = int(number(when["within"], (*path, "within"), 0, BITS, faults))
    return BankHit(bank, None if kind == "any" else kind, within)


def _fact(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition | None:
    fact = when["fact"]
    if fact in WORDS:
        faults.unknown(when, ("fact", "in"), path)
        words = _names(when.get("in"), (*path, "in"), faults)
        return FactWord(fact, frozenset(word.lower() for word in words))
    if fact not in NUMBERS:
        faults.add((*path, "fact"), f"no such fact; there is {', '.join((*NUMBERS, *WORDS))}")
        return None
    faults.unknown(when, ("fact", *BOUNDS), path)
    return Fact(fact, _band(when, path, 0, MAX_FACT, faults))


def _tag(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition:
    faults.unknown(when, ("tag", "group", *BOUNDS), path)
    bounded = any(name in when for name in BOUNDS)
    band = _band(when, path, 0, 1, faults) if bounded else Band(at_least=0.0)
    return Tag(_name(when["tag"], (*path, "tag"), faults), _group(when, path, faults), band)


def _mismatch(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition:
    faults.unknown(when, ("category_mismatch", "group"), path)
    least = number(when["category_mismatch"], (*path, "category_mismatch"), 0, 1, faults)
    return CategoryMismatch(least, _group(when, path, faults))


def _named(of: str) -> Callable[[Mapping[str, Any], Path, Faults], Condition]:
    def read(when: Mapping[str, Any], path: Path, faults: Faults) -> Condition:
        faults.unknown(when, (of,), path)
        return Named(of, frozenset(_names(when[of], (*path, of), faults, empty=of == "context")))

    return read


def _band(when: Mapping[str, Any], path: Path, lowest: float, highest: float, faults: Faults) -> Band:
    given = {name: number(when[name], (*path, name), lowest, highest, faults) for name in BOUNDS if name in when}
    if not given:
        faults.add(path, f"needs a bound: {', '.join(BOUNDS)}")
    if {"at_least", "above"} <= given.keys() or {"below", "at_most"} <= given.keys():
        faults.add(path, "takes one lower and one upper bound")
    low = max((given[name] for name in ("at_least", "above") if name in given), default=None)
    high = min((given[name] for name in ("below", "at_most") if name in given), default=None)
    closed = "at_least" in given and "at_most" in given
    if low is not None and high is not None and (low > high or (low == high and not closed)):
        faults.add(path, f"nothing lies between {low:g} and {high:g}")
    return Band(**given)


def _group(when: Mapping[str, Any], path: Path, faults: Faults) -> str | None:
    return _name(when["group"], (*path, "group"), faults) if "group" in when else None


def _name(value: object, path: Path, faults: Faults, *, empty: bool = False) -> str:
    if isinstance(value, str) and (is_class(value) or (empty and not value)):
        return value
    faults.add(path, f"must be a name of at most {MAX_NAME} visible characters")
    return ""


def _names(value: object, path: Path, faults: Faults, *, empty: bool = False) -> tuple[str, ...]:
    """A list of names, or one name for a list of one."""
    if isinstance(value, str):
        return (_name(value, path, faults, empty=empty),)
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PARTS:
        faults.add(path, f"must be a name or a list of 1 to {MAX_PARTS} names")
        return ()
    names = tuple(_name(each, (*path, number_), faults, empty=empty) for number_, each in enumerate(value))
    if len(set(names)) < len(names):
        faults.add(path, "names one twice")
    return names


READERS: Final[dict[str, Callable[[Mapping[str, Any], Path, Faults], Condition | None]]] = {
    "score": _score,
    "sum": _sum,
    "bank": _bank,
    "bank_kind": _bank,
    "fact": _fact,
    "tag": _tag,
    "category_mismatch": _mismatch,
    "category": _named("category"),
    "context": _named("context"),
    "account": _named("account"),
    "all": lambda *_: None,
    "any": lambda *_: None,
    "not": lambda *_: None,
}
