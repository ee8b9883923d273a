"""Files from the Hugging Face Hub, or from its cache where the Hub is not to be reached; each failure is a sentence."""

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RemoteEntryNotFoundError

from keyorbit.diffusion.hub_names import check_hub_id
from keyorbit.errors import InputError, first_line

log = logging.getLogger(__name__)
# Of a repository's files, those that are wanted; raises InputError where one is lacking.
Choice = Callable[[Sequence[str]], Sequence[str]]

_LOGIN = "log in with 'hf auth login', or set HF_TOKEN"
_PAGE = "it sent a web page instead of a file: is this network behind a login page? If not, check HF_ENDPOINT"
_ADDRESS = "that is no address: HF_ENDPOINT must be like https://huggingface.co"
_LOST = "the connection was lost in the middle of a file: start again, complete files are kept"
# By the names of their classes, which httpx and its successors have in common.
_OF_NETWORK = {
    "ProxyError": "the proxy refused ({said}): check what HTTPS_PROXY and ALL_PROXY name, with user and password",
    "TimeoutException": "it did not answer in time: check {network}, or wait longer with HF_HUB_ETAG_TIMEOUT",
    "TooManyRedirects": _PAGE,
    "UnsupportedProtocol": _ADDRESS,
    "InvalidURL": _ADDRESS,
    "LocalProtocolError": _ADDRESS,
    "ConnectError": "it did not answer ({said}): check {network}",
    "NetworkError": _LOST,
    "RemoteProtocolError": _LOST,
}
_OF_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is full",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "nothing may be written there",
    errno.EPERM: "nothing may be written there",
    errno.ENOTDIR: "it is no folder",
    errno.ENOENT: "it cannot be made",
}


def fetched(
    what: str,
    repo: str,
    main_file: str,
    choose: Choice,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The folder of a repository's files in the cache, into which those of them are fetched that are not there.

    Where the Hub is not to be had, it is the folder as it was fetched before, if it holds all that is wanted.

    Args:
        what: names it in error messages, such as ``"model"``.
        repo: ``owner/name``.
        main_file: one that is wanted in any case; the last that is fetched.
        choose: which are wanted, of the repository's.
        revision: a branch, tag or commit; default the main branch.
        token: for repositories that not everybody may read; default that of ``hf auth login``.
        cache_dir: default the Hub's own.
        local_files_only: leave the network alone.
        force_download: fetch what is there, too.

    Raises:
        InputError: there is no such repository, the Hub is not to be had and neither is a complete copy, or what is
            wanted is not in it.
    """
    check_hub_id(repo, what)
    try:
        if local_files_only:
            raise OfflineModeIsEnabled
        info = HfApi().model_info(repo, revision=revision, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        names = [file.rfilename for file in info.siblings or ()]
    except Exception as error:  # whatever a network, a proxy or a stranger's answer makes of it
        return _kept(what, repo, main_file, choose, revision, cache_dir, error)
    wanted = choose(names)
    try:
        fetch = partial(hf_hub_download, repo, token=token, cache_dir=cache_dir)
        for name in wanted:  # by commit: what is there needs no network
            fetch(name, revision=info.sha, force_download=force_download)
        path = fetch(main_file, revision=revision)  # notes the branch's commit, now that all of it is there
    except Exception as error:
        raise InputError(f"{_not_had(what, repo)}: {trouble(error, repo, cache_dir)}") from error
    return Path(path).parent


def _kept(
    what: str,
    repo: str,
    main_file: str,
    choose: Choice,
    revision: str | None,
    cache_dir: str | Path | None,
    error: Exception,
) -> Path:
    """The folder in the cache where it is complete, with a warning unless the network was to be left alone."""
    reason = trouble(error, repo, cache_dir)
    found = try_to_load_from_cache(repo, main_file, cache_dir=cache_dir, revision=revision)
    if not isinstance(found, str):
        raise InputError(
            f"{_not_had(what, repo)}: {reason}; no copy is in {cache_dir or constants.HF_HUB_CACHE}"
        ) from error
    folder = Path(found).parent
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    try:
        choose(names)
    except InputError as lacking:
        raise InputError(f"{_not_had(what, repo)}: {reason}; the copy in {folder} is incomplete ({lacking})") from error
    if not isinstance(error, OfflineModeIsEnabled):
        log.warning("the copy of the %s %s in %s is used; at the Hub, %s", what, repo, folder, reason)
    return folder


def _not_had(what: str, repo: str) -> str:
    return f"the {what} {repo} cannot be had, neither from a folder here nor from the Hub at {constants.ENDPOINT}"


def trouble(error: BaseException, repo: str, cache_dir: str | Path | None = None) -> str:
    """What happened, and what helps: the rest of a sentence that begins with what is not to be had."""
    causes = [*_chain(error)][::-1]  # the first cause knows most
    said = next(filter(None, (_of_answer(one, repo) for one in causes)), None)
    said = said or next(filter(None, map(_of_network, causes)), None)
    said = said or next(filter(None, (_of_disk(one, cache_dir) for one in causes)), None)
    if said is None and isinstance(error, KeyError | TypeError | AttributeError):  # JSON, but no listing
        said = _PAGE
    return said or first_line(error)


def _of_answer(error: BaseException, repo: str) -> str | None:
    if isinstance(error, OfflineModeIsEnabled):
        name = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "local_files_only"
        return f"{name} is set, so the network is left alone"
    if isinstance(error, GatedRepoError):
        return f"its authors want their terms accepted: do so at {constants.ENDPOINT}/{repo}, and {_LOGIN}"
    if isinstance(error, RemoteEntryNotFoundError):
        return "one of its files is not there"
    if isinstance(error, HfHubHTTPError):
        return _of_status(error.response.status_code, str(error))
    # Of a listing, and of the headers of a file.
    page = isinstance(error, json.JSONDecodeError) or type(error).__name__ == "FileMetadataError"
    return _PAGE if page else None


def _of_status(status: int, text: str) -> str:
    if status == 401 and "Invalid credentials" in text:
        return f"the Hub does not know your token: {_LOGIN} anew"
    if status in (401, 404):
        return f"it has none of that name, or a private one: check {_to_check('the name')}, or {_LOGIN}"
    if status == 403:
        return f"you may not read it (403): ask its owner, and {_LOGIN}"
    if status == 429:
        return f"it was asked too often (429): wait a few minutes; who is logged in may ask more often ({_LOGIN})"
    if status == 407:
        return _OF_NETWORK["ProxyError"].format(said="407")
    if status >= 500:
        return f"it is out of order ({status}): try again later"
    return f"it answered with status {status}: check HF_ENDPOINT"


def _to_check(*things: str) -> str:
    """What to check, and HF_ENDPOINT where it is set."""
    own = () if constants.ENDPOINT == "https://huggingface.co" else ("HF_ENDPOINT",)
    return " and ".join([*things, *own])


def _of_network(error: BaseException) -> str | None:
    said = re.sub(r"\[.*?\]\s*|\s*\(_\w+\.c:\d+\)", "", first_line(error)).strip()
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        said = said.partition("verify failed: ")[2] or said
        return (
            f"its certificate is not trusted ({said}): let SSL_CERT_FILE name that of this network, if it has its own"
        )
    if isinstance(error, ImportError) and "socksio" in str(error):
        return "ALL_PROXY names a SOCKS proxy, which needs socksio: pip install socksio, or unset ALL_PROXY"
    if isinstance(error, ValueError) and "proxy" in str(error).lower():
        return f"the proxy cannot be used ({said}): check what HTTPS_PROXY and ALL_PROXY name"
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return _LOST
    if isinstance(error, UnicodeEncodeError) or said.startswith("Illegal header value"):
        return f"your token is empty, or has characters that none has, such as quotes: {_LOGIN} anew"
    if isinstance(error, FileNotFoundError) and error.filename is None and (file := _no_certificates()):
        return f"SSL_CERT_FILE names {file}, which is not there: correct it, or unset it"
    proxy = ("the proxy that HTTPS_PROXY or ALL_PROXY names",) if getproxies() else ()
    network = _to_check("the network", *proxy)
    for kind in type(error).__mro__:
        if kind.__name__ in _OF_NETWORK:
            return _OF_NETWORK[kind.__name__].format(said=said, network=network)
    return None


def _no_certificates() -> str:
    """The file of certificates that is to be used, where there is none; else empty."""
    file = os.environ.get("SSL_CERT_FILE", "")
    return "" if os.path.exists(file) else file


def _of_disk(error: BaseException, cache_dir: str | Path | None) -> str | None:
    if isinstance(error, OSError) and error.errno in _OF_DISK:
        place = error.filename or cache_dir or constants.HF_HUB_CACHE
        return f"the cache cannot be written, {_OF_DISK[error.errno]} ({place}): let HF_HOME name another folder"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
