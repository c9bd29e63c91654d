"""Label selectors (apimachinery, metav1.LabelSelector)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from daemon.policy.object_fields import UnusableField, mapping_of, sequence_of, text_of

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
_OPERATORS = get_args(Operator)
Labels = Mapping[str, str]
_EMPTY: Labels = {}


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a label must be. values: empty but for In and NotIn."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Labels) -> bool:
        """Whether labels meet it. NotIn: also where there is no such label."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels

    def __str__(self) -> str:
        values = ", ".join(sorted(self.values))
        if self.operator == "In" and len(self.values) == 1:
            return f"{self.key}={values}"
        if self.operator in ("In", "NotIn"):
            return f"{self.key} {self.operator.lower()} ({values})"
        return self.key if self.operator == "Exists" else f"!{self.key}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements together; one without any matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether labels meet all requirements."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def required(self) -> tuple[str, str] | None:
        """A label, with its value, without which nothing is matched; None where there is none."""
        for each in self.requirements:
            if each.operator == "In" and len(each.values) == 1:
                (value,) = each.values
                return each.key, value
        return None

    @property
    def query(self) -> str:
        """As the API takes it (labelSelector); empty for everything."""
        return ",".join(map(str, self.requirements))

    def __str__(self) -> str:
        return self.query or "all"


def parse_selector(value: Any, key: str) -> Selector:
    """A selector. key: where it stands. Raises UnusableField."""
    found = mapping_of(value, key, {"matchLabels", "matchExpressions"})
    labels = parse_labels(found.get("matchLabels"), f"{key}.matchLabels")
    equal = [Requirement(name, "In", frozenset({text})) for name, text in sorted(labels.items())]
    expressions = sequence_of(found.get("matchExpressions"), f"{key}.matchExpressions")
    more = [
        _parse_requirement(item, f"{key}.matchExpressions[{n}]")
        for n, item in enumerate(expressions)
    ]
    return Selector((*equal, *more))


def _parse_requirement(value: Any, key: str) -> Requirement:
    found = mapping_of(value, key, {"key", "operator", "values"})
    operator = text_of(found.get("operator"), f"{key}.operator")
    if operator not in _OPERATORS:
        raise UnusableField(f"{key}.operator", operator, f"must be one of {', '.join(_OPERATORS)}")
    name = text_of(found.get("key"), f"{key}.key")
    items = sequence_of(found.get("values"), f"{key}.values")
    values = frozenset(text_of(item, f"{key}.values", empty=True) for item in items)
    if bool(values) != (operator in ("In", "NotIn")):
        why = "must hold a value" if not values else f"must be empty for {operator}"
        raise UnusableField(f"{key}.values", items, why)
    return Requirement(name, cast(Operator, operator), values)


def parse_labels(value: Any, key: str) -> Labels:
    """Labels of an object, which may have none. Raises UnusableField."""
    found = mapping_of(value, key) if value is not None else _EMPTY
    return {
        text_of(name, key): text_of(text, f"{key}.{name}", empty=True)
        for name, text in found.items()
    }
