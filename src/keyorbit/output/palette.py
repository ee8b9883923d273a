"""The colour and the name of each keypoint, the same in every picture, file and page."""

import colorsys

from keyorbit.detection.choices import keypoint_name as keypoint_name

# Okabe & Ito's eight colours, then eight found by search: any two of the sixteen are as far apart as the nearest of
# the eight (0.075 in OKLab), to full colour vision and with protanopia, deuteranopia or tritanopia.
_COLOURS = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF"),
    *("#2D2D00", "#001EB4", "#A53C0F", "#5AE1FF", "#B400FF", "#B4C3A5", "#69005A", "#784B69"),
)
_GOLDEN = 0.618034
# Keypoints of a lower score are drawn faint, and are not labelled in COCO files.
FAINT = 0.1


def palette(count: int) -> list[str]:
    """Return hex colours of keypoints 0 … count-1. Those after the sixteenth differ, but are hard to distinguish."""
    more = range(max(0, count - len(_COLOURS)))
    turned = [colorsys.hls_to_rgb((i * _GOLDEN) % 1, 0.45 + 0.2 * (i % 2), 0.8) for i in more]
    return [*_COLOURS, *(_hex(*color) for color in turned)][:count]


def rgb(color: str) -> tuple[int, int, int]:
    """Return the bytes of a colour such as ``#E69F00``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def ink(color: str) -> str:
    """Return black or white, whichever has more contrast to the colour: at least 4.5 by WCAG 2."""
    return "#000000" if luminance(color) > 0.179 else "#FFFFFF"


def luminance(color: str) -> float:
    """Compute relative luminance, 0…1 (WCAG 2)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (byte / 255 for byte in rgb(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _hex(*channels: float) -> str:
    return "#" + "".join(f"{round(255 * value):02X}" for value in channels)
