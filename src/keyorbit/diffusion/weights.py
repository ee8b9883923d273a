"""Whether a model has the weights that tokens, a run or a cache were made with."""

import logging

from keyorbit.diffusion.backends.base import Weighed
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError

log = logging.getLogger(__name__)


def same_weights(mark: str, model: Weighed) -> bool:
    """Whether a fingerprint is that of a model, also as earlier versions gave it."""
    return mark == model.fingerprint or (mark != "" and mark == model.older_fingerprint())


def check_weights(info: TokensInfo, model: Weighed, force: bool = False) -> None:
    """Whether tokens were found on a model of these weights; where they do not tell, they may be.

    Args:
        info: of the tokens.
        model: that they are to be used on.
        force: use them on other weights knowingly, with a warning in the log. Default False.

    Raises:
        InputError: they were found on other weights, and ``force`` is False.
    """
    if not info.model_fingerprint or same_weights(info.model_fingerprint, model):
        return
    found = (
        f"these tokens were discovered on model {info.model} ({info.model_fingerprint}), not on {model.name} "
        f"({model.fingerprint})"
    )
    if not force:
        raise InputError(
            f"{found}: use that model, discover tokens on this one, or use them on other weights knowingly with "
            "--force (in Python force=True)"
        )
    log.warning("%s; they are used on it all the same", found)
