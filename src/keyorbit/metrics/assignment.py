"""Pairs of the least total cost, one to one, exactly. The mathematics does without scipy, and keypoints are few."""

import math

from jaxtyping import Float
from torch import Tensor


def assign(cost: Float[Tensor, "row column"]) -> list[tuple[int, int]]:
    """min(rows, columns) pairs (row, column), sorted, each row and column at most once, of the least total cost.

    The Hungarian method with shortest augmenting paths (Kuhn 1955; Jonker & Volgenant 1987): rows join one by one, and
    potentials keep all reduced costs at 0 or above. O(rows²·columns) in Python, meant for tens of points. The costs
    must be finite. Raises ValueError when one is not.
    """
    if not bool(cost.isfinite().all()):
        raise ValueError("an assignment needs finite costs")
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T))
    costs: list[list[float]] = cost.tolist()
    columns = cost.shape[1]
    row_potential = [0.0] * len(costs)
    column_potential = [0.0] * columns
    owner: list[int | None] = [None] * columns
    for start in range(len(costs)):
        _augment(start, costs, row_potential, column_potential, owner)
    return sorted((row, column) for column, row in enumerate(owner) if row is not None)


def _augment(
    start: int, costs: list[list[float]], rows: list[float], columns: list[float], owner: list[int | None]
) -> None:
    """Gives row `start` a column along the path of the least reduced cost, and moves the potentials so that it is 0."""
    reach = [math.inf] * len(columns)
    came_from: list[int | None] = [None] * len(columns)
    done: list[int] = []
    row: int | None = start
    column, length = None, 0.0
    while row is not None:
        for j in range(len(columns)):
            step = length + costs[row][j] - rows[row] - columns[j]
            if j not in done and step < reach[j]:
                reach[j], came_from[j] = step, column
        column = min((j for j in range(len(columns)) if j not in done), key=reach.__getitem__)
        length, row = reach[column], owner[column]
        done.append(column)
    rows[start] += length
    for j in done[:-1]:
        holder = owner[j]
        assert holder is not None
        rows[holder] += length - reach[j]
        columns[j] -= length - reach[j]
    while column is not None:
        before = came_from[column]
        owner[column] = start if before is None else owner[before]
        column = before
