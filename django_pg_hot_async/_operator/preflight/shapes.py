"""Comparing the shapes of a type: labels, attributes, what a range is of."""

from __future__ import annotations

from .facts import Finding, Severity, TypeFacts, Wanted, listed

Said = tuple[Severity, str, str]


def find_in_shapes(
    wanted: Wanted, here: TypeFacts, there: TypeFacts, side: str
) -> list[Finding]:
    """Tell what is different about *there*, the type as *side* has it."""
    if here.shape == there.shape:
        return []
    severity, says, hint = _COMPARE.get(here.kind, _made_of)(here, there)
    sentence = f"{wanted} ({here.word}) has another shape on {side}: {says}"
    return [Finding(severity, "other_shape", str(wanted), sentence, hint)]


def _labels(here: TypeFacts, there: TypeFacts) -> Said:
    gone = [_literal(label) for label in here.shape if label not in there.shape]
    more = [_literal(label) for label in there.shape if label not in here.shape]
    if gone:
        says = f"it lacks {listed(gone)}"
        if more:
            says += f", and has {listed(more)}"
        return "break", says, _add_labels(here, there)
    if more:
        hint = "See that the Enum in Python, or what stands for it, takes that."
        return "warning", f"it has {listed(more)} as well", hint
    return "warning", "its labels are in another order", "ORDER BY follows that order."


def _add_labels(here: TypeFacts, there: TypeFacts) -> str:
    """Write the statements that bring the labels in line, in the order of *here*."""
    labels = list(there.shape)
    statements = []
    for i, label in enumerate(here.shape):
        if label in labels:
            continue
        renamed = labels[i] if len(labels) == len(here.shape) else None
        if renamed is not None and renamed not in here.shape:
            labels[i] = label
            says = f"RENAME VALUE {_literal(renamed)} TO {_literal(label)}"
        else:
            after = here.shape[i + 1 :]
            place = next((one for one in after if one in labels), None)
            where = f" BEFORE {_literal(place)}" if place is not None else ""
            labels.insert(
                labels.index(place) if place is not None else len(labels), label
            )
            says = f"ADD VALUE {_literal(label)}{where}"
        statements.append(f"ALTER TYPE {there.sql} {says};")
    return " ".join(statements)


def _literal(label: str) -> str:
    return "'" + label.replace("'", "''") + "'"


def _attributes(here: TypeFacts, there: TypeFacts) -> Said:
    says = f"({', '.join(there.shape)}) instead of ({', '.join(here.shape)})"
    if there.shape[: len(here.shape)] == here.shape:
        hint = "See that the factory in Python takes more attributes."
        return "warning", says, hint
    return "break", says, f"Bring it in line: ALTER TYPE {there.sql} ...; there."


def _made_of(here: TypeFacts, there: TypeFacts) -> Said:
    says = f"of {', '.join(there.shape)} instead of {', '.join(here.shape)}"
    # Values of a domain arrive as what it is made of, which is no matter of OIDs.
    severity: Severity = "warning" if here.kind == "d" else "break"
    return severity, says, "Create it anew there, as it is here."


_COMPARE = {"e": _labels, "c": _attributes}
