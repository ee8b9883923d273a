"""What Python code gives where objects are wanted: checked before anything is read or computed."""

from collections.abc import Mapping
from os import PathLike

from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectDataset, ObjectViews
from keyorbit.values import short


def check_given(objects: object) -> None:
    """Check that it is a data set, or a sequence of objects.

    Objects of a data set are not read for it.

    Raises:
        InputError: it is something else, such as a path or one object alone; the message says what to give.
    """
    if isinstance(objects, ObjectDataset):
        return
    if isinstance(objects, str | PathLike):
        raise InputError(f"objects cannot be the path {short(str(objects))}: read them, by keyorbit.load_dataset")
    if isinstance(objects, ObjectViews):
        raise InputError(f"objects cannot be {objects.name} alone: give a list with it")
    if isinstance(objects, list | tuple):
        for number, one in enumerate(objects):
            check_object(one, f"objects[{number}]")
    elif not _is_sequence(objects):
        raise InputError(
            f"objects cannot be {short(objects)}, of type {type(objects).__name__}; give what keyorbit.load_dataset "
            "returns, or a list of ObjectViews"
        )


def check_object(thing: object, name: str = "the object") -> None:
    """Check that it is one object.

    Raises:
        InputError: it is something else; the message says how to make one.
    """
    if not isinstance(thing, ObjectViews):
        raise InputError(
            f"{name} cannot be {short(thing)}, of type {type(thing).__name__}; give an ObjectViews, such as one of "
            "those that keyorbit.load_dataset reads"
        )


def _is_sequence(objects: object) -> bool:
    """Whether it may hold objects: what has a length and items by number."""
    if isinstance(objects, bytes | bytearray | Mapping | Tensor):
        return False
    return hasattr(objects, "__len__") and hasattr(objects, "__getitem__")
