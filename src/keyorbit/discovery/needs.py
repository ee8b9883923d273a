"""The memory that the steps of a discovery take, estimated from its settings before anything is allocated."""

from keyorbit.discovery.config import SettledConfig

# Objects whose silhouettes and points are kept, a megabyte each at Zero123++'s: a cache on disk may hold more objects
# than memory does.
KEPT = 1000
# Objects by which keypoints are chosen, of more: the mean over these is known to 3 % of the spread between objects.
JUDGES = 1000

# Times that a step holds all its maps, with what its gradient needs; measured, see tests/discovery/test_needs.py. Maps
# of stablekeypoints are held for each head of each layer besides.
_COPIES = {"logits": 5.0, "attention": 6.5, "stablekeypoints": 6.5}
# Times that the scores of all turns are held.
_TURNS = 2.2


def points_of(tokens: int) -> int:
    """How many points stand for an object's surface, by how many tokens are placed on it."""
    return max(400, 3 * tokens)


def step_needs(config: SettledConfig, objects: int, views: int, side: int, heads: int) -> dict[str, tuple[int, str]]:
    """Compute the bytes that a step takes, by what takes them, in words; each with what helps.

    Args:
        config: the settings.
        objects: number of all objects.
        views: number of an object.
        side: of the maps, pixels.
        heads: number in all layers that are read.
    """
    batch, tokens, versions = min(config.batch, objects), config.num_candidates, config.prepare.versions
    maps = 4 * batch * versions * views * tokens * side**2
    copies = _COPIES[config.maps] + (heads if config.maps == "stablekeypoints" else 0)
    needs = {
        f"the maps of {tokens} tokens, {side} x {side}, on {batch} objects in {versions} versions of {views} views": (
            round(copies * maps),
            "ask for a smaller map_size or batch, or for fewer tokens, warps, noises or timesteps",
        )
    }
    if config.method == "constellation" and views > 1:
        angles = config.constellation.angles
        turns = 4 * angles * points_of(tokens) * (_TURNS * batch * tokens + 3 * min(objects, KEPT))
        needs[f"the search among {angles} turns"] = (
            round(turns),
            "ask for fewer angles or candidates, or a smaller batch",
        )
    return needs
