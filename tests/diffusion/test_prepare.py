"""What is made of an object before the UNet runs."""

import torch

from helpers.wrong_cameras import RIG
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.prepare import object_generator, prepare, same_cameras
from keyorbit.diffusion.recording import record_passes
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.rigs import zero123plus_cameras


def test_rigs_of_other_lenses_are_not_the_same():
    assert same_cameras(RIG, RIG)
    assert not same_cameras(RIG, zero123plus_cameras("v1.1"))
    assert not same_cameras(RIG, Cameras(RIG.world_to_camera, RIG.intrinsics * torch.tensor([[1.1], [1.1], [1]])))
    assert not same_cameras(RIG, Cameras(RIG.world_to_camera, RIG.intrinsics, True))


def test_several_timesteps_and_noises_are_versions(backend, objects):
    config = PrepareConfig(timestep=(100, 700), warps=1, noises=2).settled(300)
    item, _, _ = prepare(objects[0], backend, config, object_generator(0, 0))
    assert item.timestep.tolist() == [100, 100, 700, 700] * 2
    assert len(item.latents) == config.versions == 8
    assert torch.equal(item.warps[0], item.warps[3])
    assert not torch.equal(item.warps[3], item.warps[4])
    together, *apart = [record_passes(backend, x, "*")["grid"] for x in (item, *item.split(3))]
    for i, layer in enumerate(together):
        torch.testing.assert_close(layer.query, torch.cat([part[i].query for part in apart]), atol=1e-5, rtol=1e-4)
