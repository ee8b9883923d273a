"""Keypoints, named and in 3D, from the cross-attention of multi-view diffusion; no labels."""

from keyorbit import losses, metrics
from keyorbit.attention import capture_attention
from keyorbit.backends.loading import load_backend
from keyorbit.cache_build import build_cache
from keyorbit.cache_index import plan_cache
from keyorbit.cameras import Cameras, orbit_cameras, zero123plus_cameras
from keyorbit.data import ObjectViews, load_dataset
from keyorbit.detect import DetectConfig, Detection, KeypointDetector
from keyorbit.discover import DiscoverConfig, discover, discover_cached
from keyorbit.disk_cache import open_cache
from keyorbit.errors import InputError
from keyorbit.evaluate import Evaluation, evaluate
from keyorbit.heatmaps import view_maps
from keyorbit.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objective import LossWeights, SingleViewWeights
from keyorbit.prepare import PrepareConfig
from keyorbit.rigs import Rig, known_rigs, rig
from keyorbit.tokens import Tokens
from keyorbit.training.config import TrainConfig
from keyorbit.training.train import train
from keyorbit.triangulation import triangulate
from keyorbit.views import Layout, merge_views, split_views

__all__ = [
    "Cameras",
    "DetectConfig",
    "Detection",
    "DiscoverConfig",
    "Evaluation",
    "InputError",
    "KeypointDetector",
    "Keypoints2D",
    "Keypoints3D",
    "Layout",
    "LossWeights",
    "ObjectViews",
    "PrepareConfig",
    "Rig",
    "SingleViewWeights",
    "Tokens",
    "TrainConfig",
    "build_cache",
    "capture_attention",
    "discover",
    "discover_cached",
    "evaluate",
    "known_rigs",
    "load_backend",
    "load_dataset",
    "losses",
    "merge_views",
    "metrics",
    "open_cache",
    "orbit_cameras",
    "plan_cache",
    "rig",
    "split_views",
    "train",
    "triangulate",
    "view_maps",
    "zero123plus_cameras",
]
