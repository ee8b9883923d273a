"""What results have in common: a short text, pictures in notebooks, copies on other devices, and files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from keyorbit.values import as_path

R = TypeVar("R")


class Shown:
    """A result that shows itself. What draws it stands in a room above its own, so it is looked up when it is used."""

    def plot(self, **options: Any) -> Any:
        """Draw it as a matplotlib figure, which ``.savefig("x.png")`` writes; pyplot is not used.

        ``options`` are those of the drawing in :mod:`keyorbit.output.notebook`.
        """
        return import_module("keyorbit.output.notebook").figure_of(self, **options)

    def _repr_html_(self) -> str:
        """Return what Jupyter shows."""
        html: str = import_module("keyorbit.output.notebook").html_of(self)
        return html


class Result(Shown):
    """A frozen dataclass of tensors, which may hold others."""

    def to(self: R, device: Any = None, dtype: Any = None) -> R:
        """The same with all tensors on another device, and those of floats in another type. Default: as they are.

        Both may be given by name, such as ``.to("cpu", "float16")``.

        Raises:
            InputError: there is no such device here, or the type is not one of floats.
        """
        return _each_tensor(self, lambda tensor: moved(tensor, device, dtype))  # type: ignore[no-any-return]

    def numpy(self) -> dict[str, Any]:
        """All fields by their names, with NumPy arrays in place of tensors, and tables in place of dataclasses."""
        found: dict[str, Any] = _plain(self)
        return found

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; whole or not at all.

        Raises:
            InputError: the disk refuses.
        """
        import_module("keyorbit.storage.packed").save_result(self, as_path(path))

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, damaged, or holds another result.
        """
        return import_module("keyorbit.storage.packed").load_result(cls, as_path(path))  # type: ignore[no-any-return]


def moved(tensor: Any, device: Any = None, dtype: Any = None) -> Any:
    """The tensor on another device, and if it is of floats, in another type. Default: as they are.

    Raises:
        InputError: there is no such device here, or the type is not one of floats.
    """
    # Here, since all that has results would lie above it otherwise.
    from keyorbit.devices import float_type, named_device

    wanted = float_type(dtype)
    with named_device(device):
        return tensor.to(device=device, dtype=wanted if tensor.is_floating_point() else None)


def _each_tensor(value: Any, change: Callable[[Any], Any]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _each_tensor(getattr(value, one.name), change) for one in fields(value)})
    if isinstance(value, Mapping):
        return {name: _each_tensor(inner, change) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_each_tensor(inner, change) for inner in value)
    return change(value) if hasattr(value, "is_floating_point") else value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(inner) for inner in value)
    return value.detach().cpu().numpy() if hasattr(value, "is_floating_point") else value


def told(kind: str, parts: Iterable[str]) -> str:
    """The text of a result, such as ``Detection('chair', 16 keypoints, 6 views)``, without its empty parts."""
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
