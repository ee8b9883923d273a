"""The learnable tokens: K embeddings that follow the text tokens in the UNet's context."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from keyorbit.devices import float_type, named_device
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.hub import HubTokens
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.model_facts import layout_told
from keyorbit.diffusion.model_places import found_from, seen_from
from keyorbit.diffusion.paths import as_told, check_tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError
from keyorbit.results import Shown, number_of, told
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.values import as_path, from_values, is_text, short

FORMAT: Literal["keyorbit-tokens-1"] = "keyorbit-tokens-1"
_FORMATS = "keyorbit-tokens-"
# Above what any model attends to: 65,536 tokens of width 4096.
_MOST, _LARGEST = 2**16, 2**30


@dataclass(frozen=True)
class _Header:
    """What a file of tokens holds besides tensors; model_folder: of the model, as seen from the file's folder."""

    format: Literal["keyorbit-tokens-1"]
    info: TokensInfo
    model_folder: str = ""


class Tokens(nn.Module, HubTokens, Shown):
    """K learnable context rows, ``embedding [token width]``, float32; after ``.half()`` and such, they are still read
    in float32, and a file of them holds less.

    helpers: more rows, [helper width], that mark no keypoints: candidates of a discovery by constellation that were not
    kept, which help to find how an object is turned.
    file: the path that they were loaded from; empty for none.
    """

    helpers: Tensor
    file: str = ""

    def __init__(
        self,
        embedding: Float[Tensor, "token width"],
        info: TokensInfo | None = None,
        helpers: Float[Tensor, "helper width"] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.detach().clone().float())
        self.info = info or TokensInfo()
        aside = embedding[:0] if helpers is None else helpers
        self.register_buffer("helpers", aside.detach().clone().float(), persistent=False)

    def to(self, *args: Any, **kwargs: Any) -> "Tokens":
        """These tokens, moved in place to another device or into another type, as :meth:`torch.nn.Module.to` does.

        A type may be given by its name, such as ``dtype="float16"``.

        Raises:
            InputError: there is no such device here, or the type is not one of floats.
        """
        if "dtype" in kwargs:
            kwargs["dtype"] = float_type(kwargs["dtype"])
        args = tuple(_typed(one, number) for number, one in enumerate(args))
        with named_device(kwargs.get("device", next(iter(args), ""))):
            return super().to(*args, **kwargs)

    def __len__(self) -> int:
        """The number of tokens, without helpers."""
        return self.embedding.shape[0]

    def __repr__(self) -> str:
        info, count = self.info, len(self.helpers)
        return told(
            "Tokens",
            (
                f"{len(self)} of width {self.embedding.shape[1]}",
                number_of(count, "helper") if count else "",
                f"of model {short(info.model)}" if info.model else "",
                f"found on {number_of(info.objects, 'object')}" if info.objects else "",
                f"named {short(', '.join(filter(None, info.names)))}" if any(info.names) else "",
            ),
        )

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> "Tokens":
        """Some tokens, by a number, a slice, a list of numbers or a mask, as :meth:`select` gives them."""
        numbers = torch.arange(len(self))[which if isinstance(which, int | slice | Tensor) else list(which)]
        return self.select(numbers.reshape(-1))

    def numpy(self) -> Float[ndarray, "token width"]:
        """The tokens' rows, without helpers, on the CPU."""
        rows: ndarray = self.embedding.detach().cpu().float().numpy()
        return rows

    @property
    def fingerprint(self) -> str:
        """A short hash of the rows, of tokens and helpers, by which two sets of tokens are told apart."""
        rows = torch.cat([self.embedding.detach(), self.helpers]).cpu().float().contiguous()
        return hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16]

    @classmethod
    def initialise(
        cls,
        text_embeddings: Float[Tensor, "row width"],
        count: int,
        generator: torch.Generator,
        info: TokensInfo | None = None,
    ) -> "Tokens":
        """Random tokens that look like the model's own: each channel has the mean and spread of its text embeddings."""
        if count < 1:
            raise InputError(f"the number of tokens must be at least 1, not {count}")
        text = text_embeddings.detach().float().cpu()
        noise = torch.randn(count, text.shape[1], generator=generator)
        return cls(text.mean(0) + text.std(0) * noise, info)

    @classmethod
    def from_phrases(cls, backend: Backend, phrases: Sequence[str]) -> "Tokens":
        """Tokens that mark what phrases name, such as "front left leg": the text encoder's rows, without discovery.

        How well a phrase is found depends on what the model's attention learned of words: see docs/named-keypoints.md.
        They are read at the backend's own layers and timestep, and named by the phrases.

        Raises:
            InputError: there is none, one is no text, two are equal but for case and spaces, one has control
                characters, ``phrases`` is no list, or the backend cannot read one.
        """
        if isinstance(phrases, str):
            raise InputError(f"phrases are a list, not one text: give [{short(phrases)}]")
        if not isinstance(phrases, Iterable):
            raise InputError(f"phrases are a list of texts, such as ['front left leg'], not {short(phrases)}")
        phrases = list(phrases)
        for phrase in phrases:
            if not isinstance(phrase, str):
                raise InputError(f"a phrase is a text, such as 'front left leg', not {short(phrase)}")
        names = tuple(" ".join(phrase.split()) for phrase in phrases)
        for name in names:
            if not is_text(name):
                raise InputError(f"the phrase {short(name)} has characters that are no text: leave them out")
        if not names:
            raise InputError("give at least one phrase, such as 'front left leg'")
        seen = dict[str, str]()
        for name in names:
            if name.casefold() in seen:
                raise InputError(
                    f"two phrases are equal, {short(seen[name.casefold()])} and {short(name)}: leave one out"
                )
            seen[name.casefold()] = name
        rows = backend.encode_phrases(names).detach().float().cpu()
        info = TokensInfo(
            model=backend.name,
            model_fingerprint=backend.fingerprint,
            layers=tuple(cross_attention_layers(backend.unet, backend.default_layers)),
            timestep=backend.default_timestep,
            version=version("keyorbit"),
            cameras_of=backend.cameras_of,
            names=names,
            layout=layout_told(backend.layout),
        )
        return cls(rows, info)

    def append_to(self, context: Float[Tensor, "batch text width"]) -> Float[Tensor, "batch all width"]:
        """The context followed by the tokens: ``[batch 77 width]`` → ``[batch 77+K width]``.

        Raises:
            InputError: the context has another width than the tokens.
        """
        if context.shape[-1] != self.embedding.shape[-1]:
            raise InputError(
                f"tokens of width {self.embedding.shape[-1]} do not fit a context of width {context.shape[-1]}: "
                "they were made for another model"
            )
        tokens = repeat(self.embedding.to(context), "token width -> b token width", b=context.shape[0])
        return torch.cat([context, tokens], dim=1)

    def select(self, indices: Tensor) -> "Tokens":
        """The chosen tokens, in the given order, with all helpers."""
        indices = indices.cpu()  # of a selection, which is where the maps are; these are where they were put
        numbers = torch.arange(len(self))[indices].tolist()
        renumbered = {old: new for new, old in enumerate(numbers)}
        pairs = tuple((renumbered[a], renumbered[b]) for a, b in self.info.pairs if {a, b} <= renumbered.keys())
        places = tuple(self.info.places[i] for i in numbers) if self.info.places else ()
        names = tuple(self.info.names[i] for i in numbers) if self.info.names else ()
        known = self.info.statistics
        statistics = None if known is None else replace(known, stray=tuple(known.stray[i] for i in numbers))
        places += self.info.places[len(self) :]
        info = replace(self.info, pairs=pairs, places=places, names=names, statistics=statistics)
        return Tokens(self.embedding.detach()[indices], info, self.helpers)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; whole or not at all.

        Raises:
            InputError: the disk refuses.
        """
        tensors = {"embedding": self.embedding, "helpers": self.helpers}
        header = {"format": FORMAT, "info": self.info.plain()}
        place = as_path(path)
        if model := seen_from(place, self.info.model):
            header["model_folder"] = model
        save_checkpoint(place, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, damaged, no tokens file or one of a later version, or holds what tokens
                cannot be.
        """
        path = as_path(path)
        check_tokens(path)
        if (size := path.stat().st_size) > _LARGEST:
            raise InputError(f"{path} has {size:,} bytes; a file of tokens has at most {_LARGEST:,}")
        tensors, values = load_checkpoint(path)
        try:
            return cls._of(tensors, values, path)
        except InputError as error:
            if later := _later(values):
                raise InputError(f"{path} was written by {later}: upgrade it, pip install -U keyorbit") from error
            raise

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor], values: Mapping[str, Any], path: Path) -> "Tokens":
        """The tokens in a file, of which all is checked."""
        header = from_values(_Header, values, f"the header of {path}")
        info = header.info
        embedding = _rows(tensors, "embedding", path)
        helpers = _rows(tensors, "helpers", path) if "helpers" in tensors else embedding[:0]
        if not 1 <= len(embedding) <= _MOST or len(helpers) > _MOST:
            raise InputError(
                f"{path} holds {len(embedding)} tokens and {len(helpers)} helpers; there must be 1 to {_MOST:,} tokens "
                "and no more helpers than that"
            )
        if helpers.shape[1] != embedding.shape[1]:
            raise InputError(
                f"{path} holds helpers of width {helpers.shape[1]} for tokens of width {embedding.shape[1]}: they must "
                "be equal"
            )
        if any(number >= len(embedding) for pair in info.pairs for number in pair):
            raise InputError(
                f"{path} has pairs of tokens with numbers up to {len(embedding) - 1} only; not {info.pairs}"
            )
        if len(info.places) not in (0, len(embedding) + len(helpers)):
            raise InputError(
                f"{path} holds {len(info.places)} places for {len(embedding)} tokens and {len(helpers)} helpers: there "
                "must be one for each, or none"
            )
        if len(info.names) not in (0, len(embedding)):
            raise InputError(
                f"{path} holds {len(info.names)} names for {len(embedding)} tokens: there must be one for each, or none"
            )
        if info.statistics is not None and len(info.statistics.stray) != len(embedding):
            raise InputError(
                f"{path} holds statistics of {len(info.statistics.stray)} keypoints for {len(embedding)} tokens: "
                "there must be those of each, or none"
            )
        place = found_from(path, info.model, header.model_folder, info.model_fingerprint)
        found = cls(embedding, replace(info, model=place), helpers)
        found.file = as_told(Path(path))
        return found


def _typed(given: Any, place: int) -> Any:
    """An argument of :meth:`Tokens.to` by its place: where it is a type it is one of floats, and text is its name."""
    named = place > 0 and isinstance(given, str)  # the first text is a device
    return float_type(given) if named or isinstance(given, torch.dtype) else given


def _later(values: Mapping[str, Any]) -> str:
    """Which version wrote a file's header, and which this is, if that is a later one; else empty."""
    info, found = values.get("info"), values.get("format")
    written, own = info.get("version") if isinstance(info, Mapping) else None, version("keyorbit")
    if isinstance(written, str) and _numbers(written) > _numbers(own):
        return f"keyorbit {short(written)[1:-1]}; this is {own}"
    if isinstance(found, str) and found.startswith(_FORMATS) and _numbers(found.removeprefix(_FORMATS)) > (1,):
        return f"a later keyorbit than this, {own}, in the format {short(found)[1:-1]}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    """Of a version such as 1.2.3; none of anything else."""
    found = re.match(r"\d{1,6}(\.\d{1,6})*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _rows(tensors: Mapping[str, Tensor], name: str, path: str | Path) -> Float[Tensor, "row width"]:
    """The tensor of that name, if it is one of rows of finite numbers."""
    if name not in tensors:
        raise InputError(f"{path} is not a keyorbit tokens file: it lacks the tensor {name}")
    found = tensors[name]
    if found.ndim != 2 or found.shape[1] < 1 or not found.is_floating_point():
        raise InputError(
            f"{path}: {name} cannot be of type {found.dtype} and shape {list(found.shape)}; it must hold floats of "
            "shape [rows, width]"
        )
    if not found.float().isfinite().all():
        raise InputError(f"{path}: {name} holds values that are not finite; discover the tokens again")
    return found
