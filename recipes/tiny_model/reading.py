"""Where phrases are: context rows read by a UNet's cross-attention layers as isolated tokens are, step after step.

The logits are those of :func:`keyorbit.diffusion.attention.capture_attention`. That one keeps its record until the next
step, on which a compiled function would depend; here a step leaves nothing behind.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.scores import mean_of_heads, without_autocast
from keyorbit.geometry.views import grid_size


class RowReader:
    """Within its ``with`` block, every forward of a UNet between :meth:`read` and :meth:`take` reads context rows."""

    def __init__(self, unet: nn.Module) -> None:
        self.names = cross_attention_layers(unet)
        self.layers: list[Any] = [unet.get_submodule(name) for name in self.names]
        self._hooks: list[Any] = []
        self._rows: Tensor | None = None
        self._query: Tensor | None = None
        self._logits: list[Tensor] = []

    def __enter__(self) -> "RowReader":
        for layer in self.layers:
            self._hooks += [
                layer.to_q.register_forward_hook(self._keep_query),
                layer.register_forward_hook(self._read),
            ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def read(self, rows: Float[Tensor, "item row context_width"]) -> None:
        """Let the forwards that follow read these rows; what they compute does not change."""
        self._rows = rows

    def take(self, *sizes: tuple[int, int]) -> list[list[LayerMaps]]:
        """The rows' logits, mean over the heads, by forward; ``sizes``: of the forwards' latents.

        Layers of one size are added, each with its share, so that the mean of what is returned is the mean of all
        layers: what is to be resized later is half as many maps.

        Raises:
            RuntimeError: there were more forwards, or fewer.
        """
        found, count = self._logits, len(self.layers)
        self._rows, self._logits = None, []
        if len(found) != len(sizes) * count:
            raise RuntimeError(f"{len(found)} of {count} layers were read, not those of {len(sizes)} forwards")
        return [self._by_size(found[i * count : (i + 1) * count], size) for i, size in enumerate(sizes)]

    def _by_size(self, logits: list[Tensor], size: tuple[int, int]) -> list[LayerMaps]:
        groups: dict[tuple[int, int], list[int]] = {}
        for i, own in enumerate(logits):
            groups.setdefault(grid_size(own.shape[2], *size), []).append(i)
        share = len(groups) / len(logits)
        return [
            LayerMaps(" + ".join(self.names[i] for i in of), share * sum_of([logits[i] for i in of]), there)
            for there, of in groups.items()
        ]

    def _keep_query(self, module: nn.Module, args: tuple[Any, ...], query: Tensor) -> None:
        self._query = query if self._rows is not None else None

    def _read(self, layer: Any, args: tuple[Any, ...], out: Tensor) -> None:
        query, self._query = self._query, None
        if query is None or self._rows is None:
            return
        key = layer.to_k(self._rows)
        with without_autocast(query.device.type):
            logits, *_ = mean_of_heads(query, [key], 0, layer.heads, layer.scale, normalizer=False)
        self._logits.append(logits)


def sum_of(tensors: list[Tensor]) -> Tensor:
    """Their sum, by one addition less than there are."""
    total = tensors[0]
    for other in tensors[1:]:
        total = total + other
    return total
