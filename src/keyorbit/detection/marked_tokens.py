"""Tokens of marks: what a fit begins with, and what is kept of it, alone or beside the tokens of a run."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.detection.choices import keypoint_name
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.recording import Recording
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import Statistics, TokensInfo
from keyorbit.discovery.config import DiscoverConfig, SettledConfig, map_side
from keyorbit.discovery.initial import initial_tokens
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.discovery.marks_fit import Fitted, Known
from keyorbit.discovery.marks_frame import Frame
from keyorbit.discovery.statistics import MOST
from keyorbit.geometry.alignment import Form, symmetric_pairs
from keyorbit.geometry.constellation import read_constellation

# Of fewer objects without marks it is not known how tokens read objects that they were not fitted to.
_FEWEST = 3


def known_of(base: Tokens | None, device: torch.device) -> Known | None:
    """The tokens of a run that has a constellation; None of others."""
    if base is None or len(base.info.places) != len(base) + len(base.helpers) or not base.info.form:
        return None
    rows = torch.cat([base.embedding.detach(), base.helpers]).to(device)
    places, form = (torch.tensor(values).to(device) for values in (base.info.places, base.info.form))
    return Known(rows, places, Form.from_rows(form))


def first_rows(
    backend: Backend, names: Sequence[str], config: MarkConfig, base: Tokens | None
) -> Float[Tensor, "name_and_helper width"]:
    """What the fit begins with: a run's own keypoints of these names, and rows like the text's."""
    text = backend.text_statistics(torch.Generator().manual_seed(0)).float().cpu()
    count = len(names) + config.helpers
    wanted = DiscoverConfig(num_tokens=len(names), num_candidates=count, seed=config.seed)
    rows = initial_tokens(text, wanted).embedding.detach().clone()
    for i, name in enumerate(names):
        if base is not None and (number := _number(base, name)) is not None:
            rows[i] = base.embedding[number].detach().cpu()
    return rows


def tokens_alone(info: TokensInfo, names: Sequence[str], fitted: Fitted) -> Tokens:
    """The tokens of the marks, with the helpers that were planted beside them."""
    return Tokens(fitted.rows.cpu(), _told(info, names, fitted.frame, len(names)), fitted.helpers.cpu())


def tokens_helped(base: Tokens, names: Sequence[str], fitted: Fitted) -> Tokens:
    """The same, where the tokens of a run help; none of these stays a keypoint."""
    helpers = torch.cat([base.embedding.detach().cpu(), base.helpers.cpu()])
    return Tokens(fitted.rows.cpu(), _told(base.info, names, fitted.frame, len(names)), helpers)


def tokens_beside(base: Tokens, names: Sequence[str], fitted: Fitted) -> Tokens:
    """The keypoints of a run, those of the marks' names replaced, and then the other marks.

    Without a constellation on both sides they have none, and no helpers.
    """
    own, rows, old = base.embedding.detach().cpu(), fitted.rows.cpu(), torch.tensor(base.info.places).reshape(-1, 3)
    frame = fitted.frame if len(old) else None
    at = [_number(base, name) for name in names]
    numbers = [number for number in at if number is not None]
    replacing = torch.tensor([number is not None for number in at])
    kept = own.clone()
    kept[numbers] = rows[replacing]
    labels = [*(base.info.names or [""] * len(own)), *(n for n, there in zip(names, at, strict=True) if there is None)]
    told = tuple(labels) if any(labels) else ()
    both = torch.cat([kept, rows[~replacing]])
    if frame is None:
        return Tokens(both, _told(base.info, told, None, len(both)))
    marked, places = frame.places[: len(names)].cpu(), old[: len(own)].clone()
    places[numbers] = marked[replacing]
    whole = Frame(frame.form, torch.cat([places, marked[~replacing], old[len(own) :]]))
    return Tokens(both, _told(base.info, told, whole, len(both)), base.helpers.cpu())


@torch.no_grad()
def with_strays(tokens: Tokens, others: Sequence[Recording], settled: SettledConfig, backend: Backend) -> Tokens:
    """The same with statistics of objects without marks, read as a detection reads them, where there are enough."""
    info = tokens.info
    if not info.places or len(others) < _FEWEST:
        return tokens
    rows = torch.cat([tokens.embedding.detach(), tokens.helpers]).to(backend.device)
    places, side = torch.tensor(info.places).to(rows), map_side(backend, settled.map_size)
    form, found = Form.from_rows(torch.tensor(info.form).to(rows)), []
    for recording in others[:MOST]:
        if recording.cameras is None:
            return tokens
        draws = recording.config.prepare.versions // (1 + recording.config.prepare.warps)
        layers, cameras = recording.maps(rows), recording.cameras.to(rows.device)
        seen = token_heatmaps(layers, backend.layout, settled.maps, side, settled.temperature)[:draws].mean(0)
        distance = recording.shown.silhouette.distance.to(rows)
        reading = read_constellation(seen, cameras, places, distance, settled.constellation, len(tokens), form)
        found.append(reading.stray)
    statistics = Statistics(len(found), tuple(torch.stack(found).mean(0).tolist()))
    return Tokens(tokens.embedding, replace(info, statistics=statistics), tokens.helpers)


def _number(base: Tokens, name: str) -> int | None:
    """Which of a run's keypoints has the name."""
    return next((i for i in range(len(base)) if keypoint_name(i, base.info.names) == name), None)


def _told(info: TokensInfo, names: Sequence[str], frame: Frame | None, count: int) -> TokensInfo:
    """What so many tokens tell of themselves."""
    found = replace(info, names=tuple(names), pairs=(), places=(), form=(), statistics=None)
    if frame is None:
        return found
    places = frame.places.cpu()
    pairs = tuple(symmetric_pairs(places[:count], torch.zeros(count)))
    return replace(found, pairs=pairs, places=_triples(places), form=_triples(frame.form.rows.cpu()))


def _triples(points: Tensor) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y, z) for x, y, z in points.tolist())
