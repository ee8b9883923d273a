"""Tokens before the first step, and what tokens tell of where they come from."""

from importlib.metadata import version

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.model_facts import ModelFacts, layout_told, model_facts
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.discovery.config import DiscoverConfig, SettledConfig, plain_settings


def initial_tokens(text_rows: Float[Tensor, "row width"], config: DiscoverConfig) -> Tokens:
    """The candidates before the first step: as the text's rows, or of mean 0 and variance 1 as StableKeypoints' are."""
    generator = torch.Generator().manual_seed(config.seed)
    # As many draws as the words behind the rows took: with seed 0, words and noise are those of one generator.
    torch.randint(2, (len(text_rows),), generator=generator)
    if "start" in config.published:
        return Tokens(torch.randn(config.num_candidates, text_rows.shape[1], generator=generator))
    return Tokens.initialise(text_rows, config.num_candidates, generator)


def untrained(backend: Backend, config: DiscoverConfig) -> Tokens:
    """The candidates as they are before the first step, the first ``num_tokens`` of them: the baseline to beat."""
    settled = config.settled(backend)
    facts = model_facts(backend, settled.layers, backend.cameras)
    start = initial_tokens(facts.text_rows, settled).embedding.detach()
    return Tokens(start[: settled.num_tokens], info_of(facts, settled))


def tokens_info(backend: Backend, config: SettledConfig) -> TokensInfo:
    """What tokens found with a loaded model tell of themselves."""
    return info_of(model_facts(backend, config.layers, backend.cameras), config)


def info_of(facts: ModelFacts, config: SettledConfig, queries: str = "float32") -> TokensInfo:
    """The same from a model's facts; ``queries`` is the type that the queries are kept in."""
    return TokensInfo(
        model=facts.name,
        model_fingerprint=facts.fingerprint,
        layers=facts.layers,
        timestep=config.prepare.timestep,
        mode=config.mode,
        seed=config.seed,
        version=version("keyorbit"),
        libraries={name: version(name) for name in ("torch", "diffusers", "transformers")},
        settings=plain_settings(config),
        queries=queries,
        cameras_of=facts.cameras_of,
        layout=layout_told(facts.layout),
        cameras_mark=facts.cameras_mark,
    )
