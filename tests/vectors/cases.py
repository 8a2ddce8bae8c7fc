"""Rating cases as they are written, and what became of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["passed", "failed", "not supported"]
Answer = Mapping[str, Any]
"""What the models say: Decimal for numbers, datetime for instants, and lists and mappings of them."""


class NotSupportedError(Exception):
    """The case asks for something that there is no way to ask the models; the message names it."""


class Given:
    """A case's inputs, each to be taken: what nobody took is a key that nobody knows."""

    def __init__(self, content: Mapping[str, Any], path: str = "inputs") -> None:
        self._content = content
        self._path = path
        self._taken: set[str] = set()
        self._parts: dict[str, list[Given]] = {}

    def __contains__(self, key: str) -> bool:
        return self._content.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the key is there without a value, where that says something."""
        return key in self._content and self._content[key] is None

    def given(self, *keys: str) -> dict[str, Any]:
        """The values of those keys that have one, as written."""
        values = {key: self.take(key, None) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    def take(self, key: str, *default: Any) -> Any:
        """The value as written; the default where it is absent or null. Raises NotSupportedError."""
        self._taken.add(key)
        value = self._content.get(key)
        if value is not None:
            return value
        if default:
            return default[0]
        raise NotSupportedError(f"needs the key {self._path}.{key}")

    def decimal(self, key: str, *default: Decimal | None) -> Any:
        value = self.take(key, *default)
        return value if value is None else decimal(value)

    def instant(self, key: str, *default: datetime | None) -> Any:
        value = self.take(key, *default)
        return instant(value) if isinstance(value, str) else value

    def part(self, key: str) -> "Given":
        """The object of a key; an empty one where it is absent."""
        (part,) = self._named(key, [self.take(key, {})])
        return part

    def parts(self, key: str) -> list["Given"]:
        """The objects of a list."""
        return self._named(key, self.values(key))

    def values(self, key: str, *default: Any) -> list[Any]:
        """The values of a list. Raises NotSupportedError."""
        values = self.take(key, *default)
        if not isinstance(values, list):
            raise NotSupportedError(f"{self._path}.{key} is no list")
        return values

    def _named(self, key: str, contents: Sequence[Any]) -> list["Given"]:
        if not all(isinstance(content, Mapping) for content in contents):
            raise NotSupportedError(f"{self._path}.{key} is no object")
        path = f"{self._path}.{key}"
        return self._parts.setdefault(key, [Given(content, path) for content in contents])

    def unknown(self) -> list[str]:
        """The keys that nobody took, with their paths."""
        here = [f"{self._path}.{key}" for key in self._content if key not in self._taken]
        return here + [
            key for parts in self._parts.values() for part in parts for key in part.unknown()
        ]


@dataclass(frozen=True)
class Case:
    """One case: its id, whether its result stands as it is, what goes in and what must come out."""

    id: str
    portability: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The operation that the case names, or what its inputs show it to be."""
        inputs = self.inputs
        if "op" in inputs:
            return str(inputs["op"])
        if "aggregation" in inputs:
            return "aggregate"
        if "snapshots" in inputs:
            return "snapshots"
        return "price"


@dataclass(frozen=True)
class Outcome:
    """What became of a case; the reason is empty for one that passed."""

    case: Case
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Reading:
    """The cases of files, and what could not be read as one: where, and what is wrong there."""

    cases: Sequence[Case]
    problems: Sequence[str]


def read_cases(paths: Iterable[Path]) -> Reading:
    """The cases of files, and of the JSON files of folders; what is no case stops no other."""
    cases: list[Case] = []
    problems: list[str] = []
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            problems.append(f"{path}: holds no file *.json")
        for file in files:
            try:
                cases += _read(file, problems)
            except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
                problems.append(f"{file}: {error}")
    return Reading(cases, problems)


def _read(file: Path, problems: list[str]) -> list[Case]:
    content = json.loads(file.read_text("utf-8"), parse_float=Decimal)
    if not isinstance(content, list):
        problems.append(f"{file}: is no list of cases")
        return []
    cases = []
    for number, each in enumerate(content, start=1):
        if missing := _missing(each):
            problems.append(f"{file}: case {number} {missing}")
        else:
            portability = str(each.get("portability", "portable"))
            cases.append(Case(str(each["id"]), portability, each["inputs"], each["expected"]))
    return cases


def _missing(case: Any) -> str:
    """What keeps it from being a case."""
    if not isinstance(case, Mapping):
        return "is no object"
    if "id" not in case:
        return "has no id"
    parts = [part for part in ("inputs", "expected") if not isinstance(case.get(part), Mapping)]
    return f"({case['id']}) has no {' and no '.join(parts)}" if parts else ""


def decimal(value: object) -> Decimal:
    """A number as written. Raises NotSupportedError."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise NotSupportedError(f"{value!r} is no number") from None
    if not number.is_finite():
        raise NotSupportedError(f"{value!r} is no number")
    return number


def instant(text: str) -> datetime:
    """An instant; a bare date is its midnight in UTC. Raises NotSupportedError."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise NotSupportedError(f"{text!r} is no instant") from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)


NAMED = ("allocated", "applied", "balances")
"""Objects whose keys are the case's own names."""

SHARES = ("allocated", "applied")
"""Those in which what is not named is nothing."""

BESIDE = ("charges_total", "discounts_total", "credits_total")
"""What is nothing where a case states an amount and not this."""


def judge(case: Case, answer: Answer) -> Outcome:
    """Compare what is expected with what the models say: decimals as numbers, instants as instants."""
    if not case.expected:
        return Outcome(case, "not supported", "expects nothing")
    wrong, refused = bool(case.expected.get("error")), bool(answer.get("error"))
    if wrong != refused:
        said = "an error" if refused else show(answer)
        return Outcome(case, "failed", f"expected {show(case.expected)}, got {said}")
    if unknown := _unknown(case.expected, answer, "expected"):
        return Outcome(case, "not supported", f"{', '.join(unknown)} is not known")
    differing = [
        f"{key}: expected {show(expected)}, got {show(answer[key])}"
        for key, expected in _stated(case.expected, answer).items()
        if not same(expected, answer[key], rest_is_nothing=key in SHARES)
    ]
    return Outcome(case, "failed" if differing else "passed", "; ".join(differing))


def _unknown(expected: Any, got: Any, path: str) -> list[str]:
    """The keys of what is expected that no answer has, with their paths."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return [
            unknown
            for key, value in sorted(expected.items())
            for unknown in (
                [f"{path}.{key}"]
                if key not in got
                else []
                if key in NAMED
                else _unknown(value, got[key], f"{path}.{key}")
            )
        ]
    if isinstance(expected, list) and isinstance(got, list):
        each = [_unknown(*pair, path) for pair in zip(expected, got, strict=False)]
        return sorted({unknown for found in each for unknown in found})
    return []


def _stated(expected: Mapping[str, Any], got: Answer) -> Mapping[str, Any]:
    """What is expected, with what is nothing because only the amount is stated."""
    if "amount" not in expected:
        return expected
    return {**{name: 0 for name in BESIDE if name in got}, **expected}


def same(expected: Any, got: Any, rest_is_nothing: bool = False) -> bool:
    """Whether the models say what is expected; of objects, in the keys that are expected."""
    match got:
        case None | bool():
            return expected is got
        case Decimal():
            return _number(expected) == got
        case datetime():
            return isinstance(expected, str) and instant(expected) == got
        case Mapping():
            return (
                isinstance(expected, Mapping)
                and all(
                    key in got and same(value, got[key])
                    for key, value in _stated(expected, got).items()
                )
                and not (rest_is_nothing and any(got[key] for key in got.keys() - expected.keys()))
            )
        case Sequence() if not isinstance(got, str):
            return (
                isinstance(expected, Sequence)
                and len(expected) == len(got)
                and all(map(same, expected, got))
            )
    return bool(expected == got)


def _number(expected: Any) -> Decimal | None:
    is_number = isinstance(expected, str | int | Decimal) and not isinstance(expected, bool)
    return decimal(expected) if is_number else None


def show(value: Any) -> str:
    """A value in one line: decimals in plain digits, instants in UTC."""
    match value:
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Mapping():
            return "{" + ", ".join(f"{key}: {show(each)}" for key, each in value.items()) + "}"
        case Sequence() if not isinstance(value, str):
            return "[" + ", ".join(map(show, value)) + "]"
    return str(value)
