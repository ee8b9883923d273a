"""Tokens on the Hugging Face Hub, through the Hub's own mixin: one safetensors file and a model card."""

import json
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from huggingface_hub.constants import CONFIG_NAME

from keyorbit.diffusion.hub_access import fetched
from keyorbit.errors import InputError

TOKENS_FILE = "tokens.safetensors"


class _Info(Protocol):
    """What a card tells of; :class:`keyorbit.diffusion.tokens_info.TokensInfo` has it."""

    model: str
    model_fingerprint: str
    mode: str
    timestep: int
    seed: int
    objects: int
    layers: tuple[str, ...]
    version: str
    libraries: dict[str, str]


def _only_tokens(name: str, files: Sequence[str]) -> list[str]:
    if TOKENS_FILE not in files:
        raise InputError(f"the Hub's {name} holds no tokens: it has no {TOKENS_FILE}")
    return [TOKENS_FILE]


class HubTokens(ModelHubMixin, library_name="keyorbit", tags=["keypoints", "multi-view"]):  # type: ignore[misc, call-arg]
    """``push_to_hub``, ``save_pretrained`` and ``from_pretrained`` for a class with ``save``, ``load`` and ``info``."""

    info: Any

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / TOKENS_FILE)
        # Flat, as the Hub's viewer shows it; the mixin would write one that it cannot read back.
        (save_directory / CONFIG_NAME).write_text(json.dumps(self.info.plain(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
        """Tokens from a folder or a Hub id; options as :class:`huggingface_hub.ModelHubMixin` has them.

        Raises:
            InputError: they are not to be had, or damaged.
        """
        name, folder = str(pretrained_model_name_or_path), Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            given = {option: options[option] for option in known if option in options}
            folder = fetched("tokens", name, TOKENS_FILE, partial(_only_tokens, name), **given)
        return cls.load(folder / TOKENS_FILE)

    def generate_model_card(self, repo_id: str = "your-name/your-tokens", **more: Any) -> ModelCard:
        """The card: how to use the tokens, and where they come from."""
        info: _Info = self.info
        template = files("keyorbit").joinpath("diffusion/model_card.md").read_text(encoding="utf-8")
        data = ModelCardData(**(self._hub_mixin_info.model_card_data.to_dict() | more))
        facts = {
            "model": f"`{info.model}`, weights `{info.model_fingerprint}`",
            "found on": f"{info.objects} objects" if info.objects else "unknown",
            "mode": info.mode,
            "timestep": info.timestep,
            "seed": info.seed,
            "layers": len(info.layers),
            "keyorbit": info.version,
            **info.libraries,
        }
        known = {"repo_id": repo_id, "model": info.model, "count": len(self), "facts": list(facts.items())}
        return ModelCard.from_template(data, template_str=template, **known)

    # What the class that inherits has.
    def save(self, path: str | Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, path: str | Path) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError
