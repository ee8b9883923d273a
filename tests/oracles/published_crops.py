"""How StableKeypoints' data sets cut out and mirror their pictures, told again with pixels counted one by one.

github ubc-vision/StableKeypoints, datasets/cub_parts.py (after CMR) and unaligned_human36m.py.
"""

import numpy as np

# Parts of CUB that change places in a mirror, from 1: left and right eye, leg, wing.
SIDES = {7: 11, 11: 7, 8: 12, 12: 8, 9: 13, 13: 9}


def bird(picture, first, last, parts, numbers, mirror):
    """A crop [side side 3] and its parts [15 2] in 0…1 as x, y, with which of them are seen.

    first and last pixel of the box, from 0 and included, x before y; four numbers of 0…1 move left, top, right, bottom.
    """
    across, down = last[0] - first[0] + 1, last[1] - first[1] + 1
    left = first[0] - (0.05 * across + (1 - 2 * numbers[0]) * 0.05 * across)
    top = first[1] - (0.05 * down + (1 - 2 * numbers[1]) * 0.05 * down)
    right = last[0] + (0.05 * across + (1 - 2 * numbers[2]) * 0.05 * across)
    bottom = last[1] + (0.05 * down + (1 - 2 * numbers[3]) * 0.05 * down)
    left, top, right, bottom = (round(side) for side in (left, top, right, bottom))
    across, down = right - left + 1, bottom - top + 1
    side = max(across, down)
    left -= round((side - across) / 2.0)
    top -= round((side - down) / 2.0)
    cut = np.zeros((side, side, 3), picture.dtype)
    for i in range(side):
        for j in range(side):
            if 0 <= top + i < picture.shape[0] and 0 <= left + j < picture.shape[1]:
                cut[i, j] = picture[top + i, left + j]
    scale = 512 / side
    places = [((x - left) * scale, (y - top) * scale) for x, y, _ in parts]
    seen = [visible > 0 for _, _, visible in parts]
    if mirror:
        cut = np.stack([cut[:, side - 1 - j] for j in range(side)], 1)
        places = [(512 - x - 1, y) for x, y in places]
        order = [SIDES.get(part, part) - 1 for part in range(1, 16)]
        places, seen = [places[i] for i in order], [seen[i] for i in order]
    return cut, np.array(places) / 512, np.array(seen)


def person(joints, width, height, shift):
    """First column and row of the crop about joints in pixels, and its width and height."""
    x, y = [joint[0] for joint in joints], [joint[1] for joint in joints]
    side = max(max(x) - min(x), max(y) - min(y))
    margin_x, margin_y = min(100, width - side), min(100, height - side)
    left = max(0, min(x) - (side - (max(x) - min(x))) / 2 - margin_x + shift[0])
    top = max(0, min(y) - (side - (max(y) - min(y))) / 2 - margin_y + shift[1])
    right, bottom = min(width, left + side + 2 * margin_x), min(height, top + side + 2 * margin_y)
    return int(left), int(top), int(right - left), int(bottom - top)
