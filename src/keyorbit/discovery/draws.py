"""Which objects are drawn, in a time that does not depend on how many there are."""

import torch


def first_shuffled(count: int, most: int, generator: torch.Generator) -> list[int]:
    """Draw distinct numbers of 0 … ``count`` - 1: the first of them in random order.

    They are those of ``torch.randperm(count)`` with the same generator, which shuffles all numbers to give a few: it
    exchanges the first place with any, then the second with any after the first (Fisher & Yates), and what is after the
    last that is wanted does not matter.

    Args:
        count: of the numbers to draw from.
        most: how many are drawn; all where there are fewer.
        generator: source of the random numbers.
    """
    moved: dict[int, int] = {}
    drawn = []
    for place in range(min(most, count)):
        other = place
        if place < count - 1:
            other += int(torch.randint(count - place, (), generator=generator))
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return drawn
