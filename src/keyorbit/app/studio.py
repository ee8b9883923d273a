"""The work of the app, without the page. All visitors share one model, one after the other."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from keyorbit.app.calls import EXAMPLES
from keyorbit.app.layers import attention_by_layer
from keyorbit.app.progress import Looks, Progress, Times
from keyorbit.app.turns import ModelLock
from keyorbit.app.uploads import Limits
from keyorbit.app.visits import Errand, Left, Visits
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.detection.kinds import KindDetector
from keyorbit.diffusion.backends.base import Backend, Watch
from keyorbit.diffusion.backends.loading import load_backend_of
from keyorbit.diffusion.choices import FROM_FOLDER, SHIPPED_KINDS, ViewChoice
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.paths import shipped_tokens, tokens_file
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.errors import InputError, memory_shortage
from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.views import Layout, split_views
from keyorbit.objects.background import CUT_OUT_FILE
from keyorbit.objects.dataset import ObjectViews, load_dataset
from keyorbit.objects.marks import check_marks, write_marks
from keyorbit.objects.pictures import square, to_uint8
from keyorbit.output.page.charts import charts
from keyorbit.output.page.panels import data_url, heat_strip, make_panel, panel_page, render, render_panel
from keyorbit.output.palette import palette
from keyorbit.output.write import write_detection
from keyorbit.storage.files import write_text

if TYPE_CHECKING:
    from keyorbit.app.own_points import OwnPoints

# What a visitor may send to somebody: the panel as one file.
PAGE = "keypoints.html"
POINTS_FILE = "points.json"
DOWNLOADS = ("keypoints.json", "coco.json", "points.glb", CUT_OUT_FILE)
_LAYER_SIDE = 32
# Of small pictures, in pixels.
_SMALL = 96
# The steps of a detection, and of making keypoints of a visitor's own points before one.
CUT_OUT, VIEWS, POINTS = "Cut the object out", "Make its views", "Find the keypoints"
MARKED, FIT = "Look at the marked objects", "Learn your points"
_WAITING = "waiting for others, who use the model"
_NOTHING = "Stopped before the first step: there is nothing to keep yet."


class Job:
    """A discovery that runs in its own thread. Its fields may be read at any time; they are replaced, not changed."""

    def __init__(self) -> None:
        self.stage = ("start", 0, 1)
        self.losses: tuple[dict[str, float], ...] = ()
        self.tokens: Tokens | None = None
        self.error: str | None = None
        self.finished = threading.Event()
        self.stopping = threading.Event()

    def stop(self) -> None:
        """Request the end. The result so far is kept."""
        self.stopping.set()

    @property
    def stopped(self) -> bool:
        """Whether the end was requested."""
        return self.stopping.is_set()


class Studio:
    """The model, the tokens with which it starts, the visitors, and the work.

    ``scratch`` is where all files of visitors are. ``kinds``: tokens by kinds of objects, among which those are looked
    for that know a picture's object best; where there are none, ``tokens`` find all keypoints.
    """

    def __init__(
        self,
        backend: Backend,
        tokens: Tokens,
        scratch: Path,
        limits: Limits | None = None,
        kinds: Mapping[str, Tokens] | None = None,
    ) -> None:
        self.backend, self.tokens, self.limits, self.kinds = backend, tokens, limits or Limits(), dict(kinds or {})
        self.lock, self.visits, self.times = ModelLock(), Visits(scratch), Times()

    def close(self, patience: float = 10.0) -> None:
        """End all work and remove the visitors' files; wait for the work for at most that many seconds."""
        self.visits.end()
        self.lock.close(patience)

    def chairs(self) -> list[ObjectViews]:
        """Return :func:`examples`; without their views where the model has another number of them and makes its own."""
        views, chairs = self.backend.layout.num_views, examples()
        if views == 1 or all(thing.views is not None and len(thing.views) == views for thing in chairs):
            return chairs
        return [ObjectViews(thing.name, thing.input_image) for thing in chairs]

    def detector(self, tokens: Tokens) -> KeypointDetector:
        """Return what finds keypoints by these tokens; those of all kinds, where the app starts with them."""
        if self.kinds and tokens is self.tokens:
            return KindDetector(self.backend, self.kinds)
        return KeypointDetector(self.backend, tokens)

    def progress(self, own: bool = False) -> Progress:
        """Return the steps of a detection that begins; with ``own``, after those that make tokens of own points."""
        several = (CUT_OUT, VIEWS, POINTS) if self.backend.layout.num_views > 1 else (POINTS,)
        return Progress((MARKED, FIT, *several) if own else several, self.times)

    def detect(
        self, thing: ObjectViews, tokens: Tokens, errand: Errand, progress: Progress
    ) -> tuple[str, list[str], Detection]:
        """Detect keypoints; return the panel of the object as HTML, and the files to download.

        Raises:
            Left: the visitor has left, or cancelled the request.
            InputError: others used the model for too long.
        """
        several = self.backend.layout.num_views > 1
        if several:
            progress.begin(CUT_OUT)
            thing.shown_image(several)
            progress.show("as the model sees it", data_url(_reduced(square(thing.framed_image))))
        progress.begin(VIEWS if several else POINTS)
        with ExitStack() as turn:
            with progress.noting(_WAITING):
                turn.enter_context(self.lock.held(errand.over, self.limits.turn))
            detector = self.detector(tokens)
            found = detector.read(detector.record(thing, _watch(errand, progress, self.backend.layout)))
        progress.end()
        with errand.new_folder() as folder:
            write_detection(folder / "keypoints", found)
            files = [str(folder / "keypoints" / name) for name in DOWNLOADS if (folder / "keypoints" / name).is_file()]
            panel = make_panel(found)
            write_text(folder / PAGE, panel_page(panel))
        return render_panel(panel), [*files, str(folder / PAGE)], found

    def fit(self, own: "OwnPoints", errand: Errand, progress: Progress) -> Tokens:
        """Make tokens of a visitor's own points, as ``keyorbit mark`` does; others may use the model in between.

        Raises:
            Left: the visitor has left, or cancelled the request.
            InputError: no point is marked, or others used the model for too long.
        """
        # Heavier than all else here, and not needed before a visitor has marked something.
        from keyorbit.detection.marking import mark

        if not own.marked:
            raise InputError("There is no point yet: click where it is, in any view.")

        def report(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            if errand.over():
                raise Left("nobody waits for the points any more")
            progress.at(done, total)
            if stage == "record" and done == total:
                progress.begin(FIT)
            self.lock.give_way()

        progress.begin(MARKED)
        with ExitStack() as turn:
            with progress.noting(_WAITING):
                turn.enter_context(self.lock.held(errand.over, self.limits.turn))
            return mark(self.backend, own.marked, own.work.marks, report=report).tokens

    def _of_kind(self, thing: ObjectViews, tokens: Tokens) -> tuple[str, Tokens]:
        """The tokens that know the object best, with their kind, where those of all kinds read it; else the tokens."""
        detector = self.detector(tokens)
        if not isinstance(detector, KindDetector):
            return "", tokens
        kind, _ = detector.detect_object(thing).kinds[0]
        return kind, self.kinds[kind]

    def attention(self, picture: Image.Image, tokens: Tokens, errand: Errand, token: int) -> str:
        """Return one token's attention at every layer, as HTML; without a run, of the kind that is found.

        Raises:
            Left: the visitor has left, or cancelled the request.
            InputError: there is no such token, or others used the model for too long.
        """
        with self.lock.held(errand.over, self.limits.turn):
            thing = ObjectViews("picture", picture)
            kind, tokens = self._of_kind(thing, tokens)
            views, layers = attention_by_layer(self.backend, tokens, thing, token)
        rows = []
        side = (_LAYER_SIDE, _LAYER_SIDE)
        for layer in layers:
            maps = resize(layer.views[None], side, "nearest-exact")[0]
            if layer.given is not None:
                maps = torch.cat([resize(layer.given[None, None], side, "nearest-exact")[0], maps])
            height, width = layer.views.shape[-2:]
            rows.append(
                {"place": _place(layer.name), "strip": heat_strip(maps), "heads": layer.heads}
                | {"height": height, "width": width}
            )
        pictures = [to_uint8(view) for view in views]
        titles = [f"view {i}" for i in range(len(pictures))]
        if layers[0].given is not None:
            titles, pictures = ["input", *titles], [square(thing.framed_image), *pictures]
        small = [_reduced(picture) for picture in pictures]
        strip = data_url(np.concatenate(small, 1))
        color = palette(len(tokens))[token]
        return render("layers.html", rows=rows, titles=titles, pictures=strip, token=token, color=color, kind=kind)

    def start(self, objects: Sequence[ObjectViews], count: int, steps: int) -> Job:
        """Start a discovery."""
        job = Job()
        prepare = PrepareConfig(noises=2)
        config = DiscoverConfig(count, 2 * count, steps=steps, batch=min(4, len(objects)), prepare=prepare)
        threading.Thread(target=self._discover, args=(job, objects, config), daemon=True).start()
        return job

    def save(self, tokens: Tokens, errand: Errand) -> str:
        """Write the tokens as a file to download."""
        with errand.new_folder() as folder:
            tokens.save(folder / "tokens.safetensors")
            return str(folder / "tokens.safetensors")

    def save_points(self, own: "OwnPoints", errand: Errand) -> str:
        """Write a visitor's own points as a file to download, which ``keyorbit mark --points`` reads.

        Raises:
            InputError: no point is marked.
        """
        check_marks(own.marks, "your pictures")
        with errand.new_folder() as folder:
            write_marks(folder / POINTS_FILE, own.marks)
            return str(folder / POINTS_FILE)

    def preview(self, thing: ObjectViews, tokens: Tokens, errand: Errand) -> str:
        """Return the panel of one object with these tokens."""
        with self.lock.held(errand.over, self.limits.turn):
            found = KeypointDetector(self.backend, tokens).detect_object(thing)
        return render_panel(make_panel(found, thing.truth))

    def _discover(self, job: Job, objects: Sequence[ObjectViews], config: DiscoverConfig) -> None:
        # Heavier than all else here, and not needed before a visitor begins one.
        from keyorbit.discovery.discover import discover

        def report(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            job.stage = (stage, done, total)
            if stage == "step":
                job.losses = (*job.losses, {"step": float(done), **values})
            elif job.stopped:
                raise Left("before the first step")
            self.lock.give_way()

        def watch(step: int, tokens: Tokens) -> bool:
            job.tokens = tokens
            return not job.stopped

        try:
            with self.lock.held(job.stopping.is_set):
                config = replace(config, save_every=min(10, max(1, config.steps)))
                job.tokens = discover(self.backend, objects, config, report=report, watch=watch)
        except Left:
            job.error = _NOTHING
        except InputError as error:
            job.error = str(error)
        except Exception as error:
            if (where := memory_shortage(error)) is not None:
                job.error = f"There is not enough of {where}: take fewer keypoints or pictures, or try again later."
                return
            job.error = f"The discovery failed ({type(error).__name__}); the server's log says more."
            raise
        finally:
            job.finished.set()


def _watch(errand: Errand, progress: Progress, layout: Layout) -> Watch:
    """What is called while views are made: tells how far they are and shows them, and ends where nobody waits."""
    looks = Looks()

    def watch(done: int, steps: int, decode: Callable[[], Tensor]) -> None:
        if errand.over():
            raise Left("nobody waits for the views any more")
        progress.at(done, steps)
        grids = looks.look(done, steps, decode)
        if grids is not None:
            views = split_views(grids[0], layout).movedim(1, 0)
            progress.show("its views, becoming", data_url(np.concatenate([_reduced(to_uint8(v)) for v in views], 1)))
        if done == steps:
            progress.begin(POINTS)

    return watch


def _reduced(picture: UInt8[ndarray, "height width 3"]) -> UInt8[ndarray, "side side 3"]:
    return np.asarray(Image.fromarray(picture).resize((_SMALL, _SMALL)))


def loss_charts(losses: Sequence[dict[str, float]]) -> str:
    """Render the losses so far as HTML."""
    return render("app_charts.html", charts=charts(losses))


def open_studio(
    run: Path | None,
    model: str | None,
    device: str,
    dtype: str,
    unet: Path | None,
    scratch: Path,
    views: ViewChoice = FROM_FOLDER,
    force: bool = False,
) -> Studio:
    """Open the studio of a run, or of the tokens for all kinds that come with keyorbit.

    Raises:
        InputError: the run or the model cannot be loaded, or they do not fit each other.
    """
    kinds = {kind: Tokens.load(shipped_tokens(kind)) for kind in SHIPPED_KINDS} if run is None else {}
    tokens = next(iter(kinds.values())) if run is None else Tokens.load(tokens_file(run))
    backend = load_backend_of(tokens, model, device, dtype, unet, views)
    for some in (tokens, *kinds.values()):
        KeypointDetector(backend, some, force=force)  # whether they fit
        # What was forced once is not refused for each picture.
        some.info = replace(some.info, model_fingerprint=backend.fingerprint)
    return Studio(backend, tokens, scratch, kinds=kinds)


def examples() -> list[ObjectViews]:
    """Return the chairs that come with keyorbit, with their views and true landmarks."""
    return list(load_dataset(EXAMPLES))


def _place(layer: str) -> str:
    """Shorten ``up_blocks.1.attentions.0.transformer_blocks.0.attn2`` to ``up 1.0``."""
    parts = layer.split(".")
    block, numbers = parts[0].removesuffix("_blocks").removesuffix("_block"), [p for p in parts[1:] if p.isdigit()]
    return f"{block} {'.'.join(numbers[:2] if block != 'mid' else numbers[:1])}"
