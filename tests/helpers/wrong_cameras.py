"""Cameras of other conventions, each with what the error says of them."""

import torch

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.rigs import zero123plus_cameras

RIG = zero123plus_cameras("v1.2")
FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1]))
TURN = torch.tensor([[0.0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
SHEAR = torch.tensor([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
CAMERA_TO_WORLD = r"looks like camera-to-world: invert"
OPENGL = r"looks like world-to-camera in OpenGL's axes"
BLENDER = r"looks like camera-to-world in OpenGL's axes \(y up, z back\), as in Blender and NeRF"


def posed(poses, cameras=RIG):
    return Cameras(poses, cameras.intrinsics, cameras.orthographic)


def seen_through(change):
    """The rig with other intrinsics; ``change`` gets and gives them in double precision."""
    return Cameras(RIG.world_to_camera, torch.as_tensor(change(RIG.intrinsics.double().clone())).float())


def scaled(rows, factor):
    def change(inner):
        inner[:, rows] *= factor
        return inner

    return seen_through(change)


WRONG = {
    "pixels": (scaled([0, 1], 320.0), r"look like pixels \(focal lengths 597.1 and 597.1, principal point 160, 160\)"),
    "pixels of tiny views": (scaled([0, 1], 16.0), "look like pixels"),
    "one row in pixels": (scaled([1], 64.0), "look like pixels"),
    "-1 to 1": (seen_through(lambda k: k * 2 - torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]])), "to −1…1"),
    "for pictures twice as large": (scaled([0, 1], 2.0), "of a picture 2 times as large as what they were divided by"),
    "for pictures a quarter larger": (scaled([0, 1], 1.25), "of a picture 1.25 times as large"),
    "for pictures half as large": (scaled([0, 1], 0.5), "of a picture 0.5 times as large as what they were divided by"),
    "negative focal": (seen_through(lambda k: k * torch.tensor([[1.0], [-1], [1]])), "principal|negative"),
    "zero focal": (seen_through(lambda k: k * torch.tensor([0.0, 1, 1])), "a focal length is 0"),
    "divided twice": (scaled([0, 1], torch.tensor([1 / 320, 1 / 320, 1.0])), "over 170°"),
    "intrinsics transposed": (seen_through(lambda k: k.mT), "intrinsics look transposed"),
    "camera to world": (posed(torch.linalg.inv(RIG.world_to_camera)), CAMERA_TO_WORLD),
    "OpenGL": (posed(FLIP @ RIG.world_to_camera), OPENGL),
    "Blender": (posed(torch.linalg.inv(FLIP @ RIG.world_to_camera)), BLENDER),
    "transposed": (posed(RIG.world_to_camera.mT), "looks transposed"),
    "scaled": (posed(torch.diag(torch.tensor([2.0, 2, 2, 1])) @ RIG.world_to_camera), "is scaled by 2"),
    "mirrored": (posed(torch.diag(torch.tensor([-1.0, 1, 1, 1])) @ RIG.world_to_camera), "is mirrored"),
    "sheared": (posed(SHEAR @ RIG.world_to_camera), "not rigid"),
    "not finite": (posed(RIG.world_to_camera * float("nan")), "not finite"),
    "no last row": (posed(RIG.world_to_camera * torch.tensor([[1.0], [1], [1], [0]])), "last row"),
    "one point": (posed(RIG.world_to_camera[:1].expand(6, 4, 4)), "all stand at one point"),
    "past each other": (posed(TURN @ RIG.world_to_camera), "do not look at one object"),
}
