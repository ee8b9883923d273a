"""Keypoints of new objects: one picture (the model generates the views) or given views; 2D on each, 3D if it can."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import overload

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from keyorbit.budget import check_budget
from keyorbit.detection.averages import averaged, averaged_as_published
from keyorbit.detection.choices import Peak
from keyorbit.detection.confidence import TINY, confidence_of
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.found import Detection
from keyorbit.detection.in_picture import in_picture
from keyorbit.detection.input_camera import find_input_camera
from keyorbit.detection.peaks import peak_score
from keyorbit.detection.provenance import Provenance
from keyorbit.detection.reading import KeypointReader
from keyorbit.diffusion.backends.base import Backend, Watch, check_backend
from keyorbit.diffusion.captured import Pass
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.maps import token_heatmaps, token_maps
from keyorbit.diffusion.prepare import same_cameras
from keyorbit.diffusion.recording import Recording, check_recordings, record, record_each
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.diffusion.weights import check_weights
from keyorbit.discovery.config import DiscoverConfig, config_from_settings, map_side
from keyorbit.errors import InputError
from keyorbit.geometry.evidence import GRID_POINTS
from keyorbit.geometry.heatmaps import normalize, resize
from keyorbit.geometry.hull import grown_masks
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.emptiness import check_seen, is_noise
from keyorbit.objects.framing import middle_square, on_object
from keyorbit.objects.in_memory import MANY, Given, Many, as_object, as_objects
from keyorbit.values import check_kind

log = logging.getLogger(__name__)

# Times that all maps are held while they are read.
_COPIES = 4
# Share of the grid's points that are searched.
_LIKELY = 0.25


class KeypointDetector:
    """Reads discovered tokens on new objects.

    Args:
        backend: the model.
        tokens: that were discovered on it.
        config: the settings. Default None: :class:`DetectConfig` as it is.
        force: use tokens of other weights knowingly, with a warning in the log. Default False.

    Raises:
        InputError: the tokens were made for other weights than the backend's, or with cameras that it was not told of.
    """

    def __init__(
        self, backend: Backend, tokens: Tokens, config: DetectConfig | None = None, force: bool = False
    ) -> None:
        check_backend(backend)
        check_kind("tokens", tokens, Tokens, "what keyorbit.discover returns, or Tokens.load reads")
        check_kind("config", config, DetectConfig | None, "a DetectConfig")
        check_weights(tokens.info, backend, force)
        width, there = int(backend.unet.config.cross_attention_dim), tokens.embedding.shape[1]
        if there != width:
            raise InputError(
                f"these tokens have width {there}, and the model {backend.name} takes {width}: they are another's"
            )
        if tokens.info.cameras_of and not backend.cameras_of:
            raise InputError(
                f"these tokens were discovered with the cameras of {tokens.info.cameras_of}: load the model with "
                f"rig={tokens.info.cameras_of!r}"
            )
        if tokens.info.layout and tokens.info.layout != backend.layout.text:
            raise InputError(
                f"these tokens were discovered on views in a layout of {tokens.info.layout}, not "
                f"{backend.layout.text}: load the model with layout={tokens.info.layout!r}"
            )
        self.backend, self.tokens = backend, tokens
        self.config = config or DetectConfig()
        self.discovered = found_with(tokens.info).settled(backend)
        check_budget(self._needs(), backend.device)
        check_recordings(backend, self.recording, 1)
        self.peak = _peak(self.config.peak, backend.cameras is None and self.discovered.maps != "logits")
        if self.published and self.config.peak is None:
            self.peak = "argmax"
        timestep, maps = self.discovered.prepare.timestep, self.discovered.maps
        log.info(
            "%d tokens from %d objects: maps of kind %s, timestep %s, layers %s",
            len(tokens),
            tokens.info.objects,
            maps,
            timestep,
            self.discovered.layers,
        )

    @property
    def fingerprint(self) -> str:
        """Of what is looked for: of the tokens."""
        return self.tokens.fingerprint

    @property
    def published(self) -> bool:
        """Whether it reads as StableKeypoints published it: see ``reading`` of :class:`DiscoverConfig`."""
        return "reading" in self.discovered.published

    @property
    def context(self) -> Float[Tensor, "token width"] | None:
        """The tokens and helpers, if they are the UNet's whole context (mode ``alone``): it has to run with them."""
        return self._everyone() if self.discovered.mode == "alone" else None

    def _everyone(self) -> Float[Tensor, "token_and_helper width"]:
        """Tokens, then helpers: together, as they were found, since some maps share a softmax."""
        return torch.cat([self.tokens.embedding.detach(), self.tokens.helpers]).to(self.backend.device, torch.float32)

    def _needs(self) -> dict[str, tuple[int, str]]:
        """Bytes that reading one object takes, by what takes them, with what helps."""
        tokens, views = len(self.tokens) + len(self.tokens.helpers), self.backend.layout.num_views
        side, versions = map_side(self.backend, self.discovered.map_size), self.recording.prepare.versions
        words = f"the maps of {tokens} tokens, {side} x {side}, in {versions} versions of {views} views"
        copies = _COPIES * versions
        if self.discovered.maps == "stablekeypoints":  # of each head, one version at a time
            names = cross_attention_layers(self.backend.unet, self.discovered.layers)
            copies = _COPIES * max(int(self.backend.unet.get_submodule(name).heads) for name in names)
        needs = {words: (copies * 4 * views * tokens * side**2, "ask for fewer noises or warps")}
        if self.tokens.info.places and self.config.space in (None, "constellation"):
            angles = self.discovered.constellation.angles
            turns = round(8 * _LIKELY * angles * tokens * GRID_POINTS)
            needs[f"the search among {angles} turns"] = turns, "take tokens that were found with fewer angles"
        return needs

    @property
    def recording(self) -> RecordConfig:
        """What has to be recorded of an object; detectors of which this is the same can share recordings."""
        config, found = self.config, self.discovered
        shown = PrepareConfig(warps=config.warps, noises=config.noises, seed=config.seed)
        if self.published:
            shown = replace(
                shown, **{name: getattr(found.prepare, name) for name in ("rotation_deg", "scale", "shift")}
            )
        prepare = shown.settled(found.prepare.timestep, published=self.published)
        blind = config.blind if self.backend.has_condition_pass else 0
        return RecordConfig(found.layers, found.maps, prepare, condition=True, blind=blind)

    @overload
    def detect(self, picture: Given) -> Keypoints2D: ...
    @overload
    def detect(self, picture: Many, batch: int | None = None) -> list[Keypoints2D]: ...
    def detect(self, picture: Given | Many, batch: int | None = None) -> Keypoints2D | list[Keypoints2D]:
        """The keypoints on the input picture and on every view; ``.triangulate()`` gives them in 3D if it can.

        It takes what :meth:`detect_object` takes, and raises what it raises.
        """
        if isinstance(picture, MANY):
            return [one.keypoints_2d for one in self.detect_object(picture, batch)]
        return self.detect_object(picture).keypoints_2d

    @overload
    def detect_object(self, picture: Given) -> Detection: ...
    @overload
    def detect_object(self, picture: Many, batch: int | None = None) -> list[Detection]: ...
    def detect_object(self, picture: Given | Many, batch: int | None = None) -> Detection | list[Detection]:
        """Everything found on one object, or on each of a list: :meth:`record`, then :meth:`read`.

        Args:
            picture: the path of a picture or of an object folder, a Pillow image, an array [height width channel], a
                tensor [channel height width], a picture's bytes, or an object; or a list of these, or a data set. See
                :func:`keyorbit.objects.in_memory.as_object`.
            batch: objects of a list that go through the model together; as for :meth:`record_each`.

        Raises:
            InputError: a picture cannot be read or is empty, or an object's views do not fit the model.
        """
        found = [self.read(recording) for recording in self.record_each(as_objects(picture), batch)]
        return found if isinstance(picture, MANY) else found[0]

    def record(self, picture: Given, watch: Watch | None = None) -> Recording:
        """The object as the model sees it, for :meth:`read` of this detector and of others with the same settings.

        Args:
            picture: as for :meth:`detect_object`.
            watch: called as ``watch(done, steps, look)`` after each step that generates views; ``look()`` decodes them
                as the model predicts them by now, and what it raises ends the work. Default None.

        Raises:
            InputError: the picture cannot be read or is empty, or the object's views do not fit the model.
        """
        thing = as_object(picture)
        check_seen(thing)
        return record(thing, self.backend, self.recording, self._generator(), self.context, watch)

    def record_each(self, objects: Iterable[ObjectViews], batch: int | None = None) -> Iterator[Recording]:
        """The same of many objects, ``batch`` at a time; each is drawn as if it were alone.

        ``batch`` is 1 or more, by default 1 on the CPU and 8 elsewhere: see
        :func:`keyorbit.diffusion.recording.record_each`.

        Raises:
            InputError: ``batch`` is below 1, a picture is empty, or an object's views do not fit the model.
        """
        items = ((thing, self._generator()) for thing in _each_seen(objects))
        return record_each(items, self.backend, self.recording, batch, self.context)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.config.seed)

    @torch.no_grad()
    def read(self, recording: Recording) -> Detection:
        """Everything found on a recorded object.

        Raises:
            InputError: it was recorded with other settings than this detector's, with another model, or with other
                tokens as the model's context.
        """
        check_kind("recording", recording, Recording, "what this detector's record returns")
        if recording.fingerprint != self.backend.fingerprint:
            raise InputError(f"{recording.thing.name} was recorded with another model: record it with this detector")
        if recording.config != self.recording:
            raise InputError(f"{recording.thing.name} was recorded with other settings: record it with this detector")
        if not _same_rows(recording.context, self.context):
            raise InputError(f"{recording.thing.name} was recorded with other tokens: record it with this detector")
        thing, views, cameras = recording.thing, recording.views, recording.cameras
        grid, began = self._heatmaps(recording, "grid", self.backend.layout), time.monotonic()
        warp = Warp(recording.shown.warps.to(grid))
        if self.published:
            still = len(grid) // (1 + self.recording.prepare.warps)
            everything = normalize(averaged_as_published(grid, warp, still, self.backend.view_size))
        else:
            everything = normalize(averaged(grid, warp))
        heatmaps, condition = everything[:, : len(self.tokens)], None
        if "condition" in recording.queries:
            sighted = self._heatmaps(recording, "condition", Layout(1, 1))[self.recording.sighted]
            condition = sighted.mean(0)[0, : len(self.tokens)]
            if self.published:
                condition = resize(condition, (self.backend.view_size, self.backend.view_size))
        silhouette = recording.shown.silhouette
        reader = KeypointReader(self.tokens, self.config, self.discovered.constellation, self.peak)
        found = reader.read(everything, condition, silhouette.distance.to(heatmaps), cameras)
        keypoints, points = found.flat, found.points
        camera, framing = None, thing.framing if len(views) > 1 else None
        given = None if condition is None else condition.cpu()
        # Azimuth 0 for the input picture is a convention of the model's own rig.
        if points is not None and given is not None and same_cameras(cameras, self.backend.cameras):
            camera = find_input_camera(thing.framed_image, keypoints, points, given, silhouette.distance.cpu())
        # Views that were given are what they are, whatever the picture shows.
        apart = None if camera is None or thing.views is not None else camera.apart
        statistics = self.tokens.info.statistics
        confidence = confidence_of(found.reading, points, statistics, apart)
        if confidence is not None and thing.views is None:
            if is_noise(thing):
                confidence = confidence.of_noise()
            elif self.backend.name == "tiny":
                confidence = replace(confidence, model=TINY)
        if given is not None:  # after the camera, whose weights are calibrated for the heatmaps' sharpness alone
            keypoints = replace(keypoints, input_score=self._input_score(given, thing.framed_image))
        if framing is not None and framing.recentred:
            keypoints, camera, given = in_picture(framing, keypoints, camera, given)
        how = "given" if thing.views is not None and len(views) > 1 else "generated"
        sight = "one view" if len(views) == 1 else f"{len(views)} {how} views"
        log.info("%s: %d keypoints on %s, in %.1f s", thing.name, len(self.tokens), sight, time.monotonic() - began)
        return Detection(
            thing.name,
            thing.shown_image(len(views) > 1),
            views.cpu(),
            silhouette.mask.cpu(),
            heatmaps.cpu(),
            keypoints,
            points,
            camera,
            given,
            self.tokens.info.pairs,
            framing,
            found.reading,
            confidence,
            names=self.tokens.info.names,
            mesh=thing.mesh,
            source=thing.source,
            made_with=self._provenance(),
        )

    def _provenance(self) -> Provenance:
        backend, tokens, recorded = self.backend, self.tokens, self.recording
        return Provenance(
            version("keyorbit"),
            backend.name,
            backend.fingerprint,
            backend.precision.dtype,
            backend.cameras_of,
            backend.layout.text,
            tokens.fingerprint,
            tokens.file,
            self.config,
            recorded.layers,
            recorded.maps,
            recorded.prepare.timesteps,
        )

    def _input_score(self, heatmaps: Float[Tensor, "token side side"], picture: Image.Image) -> Float[Tensor, " token"]:
        """The scores on the input picture, where the object is known: only what is on it counts."""
        known, size = on_object(picture.crop(middle_square(picture))), (heatmaps.shape[-2], heatmaps.shape[-1])
        covered = None if known is None else grown_masks(torch.from_numpy(known)[None, None], size)[0, 0]
        return peak_score(heatmaps, heatmaps, self.config.window, covered)

    def _heatmaps(
        self, recording: Recording, which: Pass, layout: Layout
    ) -> Float[Tensor, "version view token_and_helper side side"]:
        """Those of the tokens, then of the helpers; without helpers where all share a softmax, which needs no more.

        As published, they are not brought to a sum of 1 before they are averaged.
        """
        side, found = map_side(self.backend, self.discovered.map_size), self.discovered
        layers, read = recording.maps(self._everyone(), which), token_maps if self.published else token_heatmaps
        if found.maps != "stablekeypoints":
            return read(layers, layout, found.maps, side, found.temperature)
        versions = range(len(layers[0].maps))
        each = ([replace(layer, maps=layer.maps[i : i + 1]) for layer in layers] for i in versions)
        made = [read(one, layout, found.maps, side, found.temperature)[:, :, : len(self.tokens)] for one in each]
        return torch.cat(made)


def found_with(info: TokensInfo) -> DiscoverConfig:
    """How tokens were found, as far as it decides how they are read.

    Where they have no settings, these are their layers, timestep and mode; where they name no layers either, the
    model's own.

    Raises:
        InputError: as :func:`keyorbit.discovery.config.config_from_settings`.
    """
    if info.settings:
        return config_from_settings(info.settings)
    if not info.layers:
        return DiscoverConfig()
    return DiscoverConfig(layers=info.layers, mode=info.mode, prepare=PrepareConfig(timestep=info.timestep))


def _peak(chosen: Peak | None, flat: bool) -> Peak:
    """The peak that is read; ``flat``: of maps that are 0 nowhere."""
    return chosen or ("window" if flat else "soft")


def _same_rows(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and bool(torch.equal(first.to(second), second))


def _each_seen(objects: Iterable[ObjectViews]) -> Iterator[ObjectViews]:
    for thing in objects:
        check_seen(thing)
        yield thing
