"""What ``keyorbit doctor`` looks at: versions, devices, memory, extras, and whether a known object is found."""

import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from keyorbit.budget import free_device_bytes, free_host_bytes
from keyorbit.devices import AUTO, device_words, known_devices, resolve_device
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.errors import InputError, first_line, memory_shortage

# Extras for those who change keyorbit, not for those who use it.
_OF_DEVELOPERS = ("dev", "docs", "benchmarks")
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?([^;]*)(?:;.*extra == ['\"]([\w-]+)['\"])?")
# The chair of those that ship which the self-test looks at, and how far its keypoints may be from one point in space,
# in sides of the view: what other tokens have is several times as much.
_CHAIR, _MOST = "chair_2_00003", 0.03
# Where the Hub's library keeps models, unless variables say otherwise.
_HOME = "~/.cache/huggingface"
# How far keypoints of another device may be from the CPU's, in sides of the view.
_APART = 0.02


@dataclass(frozen=True)
class Package:
    """A library that is needed: the versions that will do, and the one that is there, which is None if none is."""

    name: str
    wanted: str
    found: str | None

    @property
    def words(self) -> str:
        """What is wrong; empty for nothing."""
        if self.found is None:
            return f"{self.name} is missing"
        try:
            from packaging.specifiers import SpecifierSet
        except ImportError:  # another library brings it along
            return ""
        enough = SpecifierSet(self.wanted).contains(self.found, prereleases=True)
        return "" if enough else f"{self.name} {self.found} is too old"


@dataclass(frozen=True)
class Extra:
    """An optional part, what it lacks, and the command that installs it."""

    name: str
    missing: tuple[str, ...]
    install: str


@dataclass(frozen=True)
class Device:
    """What computes; ``free`` is memory in bytes, 0 where it is not known."""

    name: str
    words: str
    free: int


@dataclass(frozen=True)
class Trial:
    """Whether the self-test found what it should, how long it took, and what there is to say."""

    passed: bool
    seconds: float
    words: str


@dataclass(frozen=True)
class Checkup:
    """All of it; ``trial`` is None where there was none, and ``broken`` says why libraries cannot be used, if so."""

    keyorbit: str
    python: str
    system: str
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    devices: tuple[Device, ...]
    chosen: str
    memory_free: int
    disk_free: int
    cache: str
    trial: Trial | None
    broken: str = ""

    @property
    def problems(self) -> list[str]:
        """What has to be mended, each in a sentence; extras are not among it."""
        found = [f"{one.words}: pip install -U '{one.name}{one.wanted}'" for one in self.packages if one.words]
        if self.broken:
            found.append(f"the libraries cannot be used: {self.broken}")
        if self.trial is not None and not self.trial.passed:
            found.append(f"the self-test failed: {self.trial.words}")
        return found


def checkup(trial: bool = True) -> Checkup:
    """Look at everything; ``trial``: also detect keypoints on an object that ships, which takes seconds."""
    packages, extras = _requirements(requires("keyorbit") or ())
    host, devices, chosen, broken = free_host_bytes(), tuple[Device, ...](), "", ""
    try:
        devices = tuple(Device(str(one), device_words(one), free_device_bytes(one, host)) for one in known_devices())
        chosen = resolve_device(AUTO)
    except (ImportError, OSError, RuntimeError) as error:  # a driver or a library that does not fit
        broken = first_line(error)
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or _HOME, "hub")).expanduser()
    return Checkup(
        version("keyorbit"),
        platform.python_version(),
        platform.platform(),
        packages,
        extras,
        devices,
        chosen,
        host,
        shutil.disk_usage(_there(cache)).free,
        str(cache),
        _trial() if trial and not broken else None,
        broken,
    )


def _requirements(lines: Sequence[str]) -> tuple[tuple[Package, ...], tuple[Extra, ...]]:
    packages, missing = list[Package](), dict[str, list[str]]()
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, wanted, extra = match[1], match[2].strip(), match[3]
        if extra is None:
            packages.append(Package(name, wanted, _version(name)))
        elif extra not in _OF_DEVELOPERS:
            missing.setdefault(extra, [])
            if _version(name) is None:
                missing[extra].append(name)
    extras = (Extra(name, tuple(lacks), f"pip install 'keyorbit[{name}]'") for name, lacks in missing.items())
    return tuple(packages), tuple(extras)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _there(path: Path) -> Path:
    """The path, or the nearest folder above that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path())


def _trial() -> Trial:
    """Detect keypoints on a chair that ships, on the device that would be chosen, and on the CPU if that is another."""
    began = time.monotonic()
    try:
        words = _tried()
        passed = not words
    except (InputError, RuntimeError, MemoryError, OSError, ImportError) as error:
        where = memory_shortage(error) if isinstance(error, RuntimeError | MemoryError) else None
        passed, words = False, f"{where} does not suffice" if where else first_line(error)
    return Trial(passed, time.monotonic() - began, words or "16 keypoints of a chair are where they should be")


def _tried() -> str:
    """What is wrong; empty for nothing."""
    from keyorbit.cli.work.loading import quiet_libraries
    from keyorbit.detection.detector import KeypointDetector
    from keyorbit.diffusion.backends.loading import load_backend
    from keyorbit.diffusion.tokens import Tokens

    quiet_libraries()
    chair, tokens = shipped_tokens().parent / _CHAIR, Tokens.load(shipped_tokens())
    found = []
    for device in dict.fromkeys((resolve_device(AUTO), str(known_devices()[-1]))):
        one = KeypointDetector(load_backend("tiny", device), tokens).detect_object(chair)
        points = one.keypoints_3d
        if points is None or not points.xyz.isfinite().all():
            return f"on {device} keypoints are not finite"
        if (error := float(points.reprojection_error.median())) > _MOST:
            return f"on {device} the views' keypoints do not agree: {error:.1%} of the side"
        found.append((device, one.keypoints_2d.xy))
    (first, ours), (_, reference) = found[0], found[-1]
    apart = float((ours - reference).norm(dim=-1).median())
    return f"{first} finds other keypoints than the CPU, {apart:.1%} of the side away" if apart > _APART else ""
