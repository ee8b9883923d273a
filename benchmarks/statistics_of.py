"""Statistics for tokens that were found before tokens files kept any; the embeddings stay as they are.

``python benchmarks/statistics_of.py TOKENS DATA``, where DATA is the folder of the objects that the tokens were found
on. For the tokens that ship: ``keyorbit dataset make chairs --category chair --objects 60 --seed 1``, and the folder
``chairs``.
"""

import argparse
from pathlib import Path

import keyorbit as ko
from keyorbit.diffusion.backends.loading import load_backend_of
from keyorbit.discovery.config import config_from_settings
from keyorbit.discovery.discover import start_run
from keyorbit.discovery.memory import open_source
from keyorbit.discovery.statistics import MOST, with_statistics
from keyorbit.ranks import Ranks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    tokens = ko.Tokens.load(args.tokens)
    backend = load_backend_of(tokens, None, "cpu", "float32")
    config = config_from_settings(tokens.info.settings).settled(backend)
    source = open_source(backend, ko.load_dataset(args.data)[:MOST], config, Ranks(), lambda *_: None)
    found = with_statistics(start_run(source, config, Ranks()), tokens)
    found.save(args.tokens)
    print(found.info.statistics)


if __name__ == "__main__":
    main()
