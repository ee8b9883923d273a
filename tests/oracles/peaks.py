"""Where a heatmap has its peak, by loops."""


def slow_peak(heatmap, peak):
    """Place and score of one heatmap [height, width] by loops; the window's radius is 0.12 of 32 pixels, so 4."""
    side = len(heatmap)
    cells = [(row, col) for row in range(side) for col in range(side)]
    top = max(cells, key=lambda cell: heatmap[cell])
    near = [cell for cell in cells if max(abs(cell[0] - top[0]), abs(cell[1] - top[1])) <= 4]
    used = {"soft": cells, "window": near, "argmax": [top]}[peak]
    mass = sum(heatmap[cell] for cell in used)
    x, y = (sum(heatmap[cell] * (cell[axis] + 0.5) / side for cell in used) / mass for axis in (1, 0))
    flat = len(near) / side**2
    return (x, y), max(0.0, (sum(heatmap[cell] for cell in near) - flat) / (1 - flat))
