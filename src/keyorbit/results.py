"""What results have in common: a short text of themselves."""

from collections.abc import Iterable


def told(kind: str, parts: Iterable[str]) -> str:
    """The text of a result, such as ``Detection('chair': 16 keypoints, 6 views)``, without its empty parts."""
    return f"{kind}({', '.join(filter(None, parts))})"


def number_of(count: int, what: str) -> str:
    """Such as "1 view" and "6 views"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def span(values: Iterable[float], digits: int = 2) -> str:
    """Such as "0.21…0.97"; empty for no values."""
    known = list(values)
    return f"{min(known):.{digits}f}…{max(known):.{digits}f}" if known else ""


def share(value: float | None) -> str:
    """In percent with one decimal."""
    return "unknown" if value is None else f"{100 * value:.1f} %"
