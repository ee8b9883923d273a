"""How tokens that were found read the objects that they were found on; a detection is compared with it."""

from dataclasses import replace

import torch

from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import Statistics
from keyorbit.discovery.run import DiscoveryRun
from keyorbit.geometry.alignment import Form
from keyorbit.geometry.constellation import read_constellation
from keyorbit.geometry.heatmaps import normalize

# Objects that are read at most: more do not change a mean.
MOST = 24


@torch.no_grad()
def with_statistics(run: DiscoveryRun, tokens: Tokens) -> Tokens:
    """The same tokens, with the statistics of the run's first objects; without a constellation, as they are.

    They are read as a detection reads them: the mean of the maps of all draws of noise, unwarped.
    """
    info, source, cameras = tokens.info, run.source, run.source.facts.cameras
    if not info.places or cameras is None:
        return tokens
    rig = cameras.to(source.device)
    places = torch.tensor(info.places, device=source.device)
    form = Form.from_rows(torch.tensor(info.form, device=source.device)) if info.form else None
    rows = torch.cat([tokens.embedding.detach(), tokens.helpers]).to(source.device)
    unwarped = source.versions // (1 + run.config.prepare.warps)
    found = []
    for batch in run.batches(range(min(len(source), MOST))):
        maps = run.heatmaps(run.maps(batch, rows.expand(len(batch), -1, -1), run.config.temperature))
        _, _, distances = run.outlines(batch)
        for seen, distance in zip(normalize(maps[:, :unwarped].mean(1)), distances, strict=True):
            shape = run.config.constellation
            reading = read_constellation(seen, rig, places, distance, shape, count=len(tokens), form=form)
            found.append(reading.stray)
    statistics = Statistics(len(found), tuple(torch.stack(found).mean(0).tolist()))
    return Tokens(tokens.embedding, replace(info, statistics=statistics), tokens.helpers)
