"""The elevation of a picture's camera by trying all of them."""

import torch

from keyorbit.geometry.cameras import orbit_cameras


def search_elevation(points, xy, weights, scale=0.02, step=0.1):
    """Degrees of least Cauchy cost among cameras on the usual orbit at azimuth 0, uncropped, -60 to 85."""
    tried = torch.arange(-60.0, 85.0, step).tolist()
    seen = orbit_cameras(0.0, tried, dtype=points.dtype).project(points)
    square = (seen - xy).square().sum(-1) / scale**2
    return tried[int((weights * torch.log1p(square)).sum(-1).argmin())]
