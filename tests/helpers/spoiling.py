"""What a file holds, wrong in one place: every field in turn, also nested ones."""

import copy
import json

from hypothesis import strategies as st

from helpers.hostile import hostile


def places(values, most=400):
    """The paths of all fields of nested values, as tuples of keys and numbers; of long lists the first two items."""
    found, left = [], [((), values)]
    while left and len(found) < most:
        path, value = left.pop(0)
        items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
        for key, item in items:
            found.append((*path, key))
            left.append(((*path, key), item))
    return found


def replaced(values, path, value):
    """A copy with another value there."""
    made = copy.deepcopy(values)
    if not path:
        return value
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def removed(values, path):
    """A copy without what is there."""
    made = copy.deepcopy(values)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return made


@st.composite
def spoiled(draw, values, more=()):
    """One field replaced by a hostile value, removed, or a new one; ``more`` are names of fields that are left out."""
    path = draw(st.sampled_from([(), *places(values), *((name,) for name in more), ("unheard_of",)]))
    there = bool(path) and path in places(values)
    if there and draw(st.integers(0, 9)) == 0:
        return path, removed(values, path)
    return path, replaced(values, path, draw(hostile()))


def as_json(values):
    """JSON as Python writes it: NaN and infinity too, and lone surrogates escaped."""
    return json.dumps(values)
