"""``python -m keyorbit``."""

from keyorbit.cli import main

if __name__ == "__main__":
    main()
