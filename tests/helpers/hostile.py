"""Values that no field should trip over, and what the command line answers to them."""

import contextlib
import io
import sys
import traceback
from dataclasses import dataclass

from hypothesis import strategies as st

from keyorbit.cli import main

HUGE = 10**30
# One of each kind of wrong value that JSON and TOML can hold (TOML has no null).
WRONG = (
    None, True, "", "a", "-1", 0, -1, 2**31, 2**64, HUGE, 0.5, -0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    float("-inf"), [], {}, [[]], [None], ["a"], [0], [-1], [1e308], [float("nan")], {"a": 1}, [[[[1]]]], "x" * 300,
    "../x", "/x", "\x00", "\ud800", "=1+1", [0] * 1000,
)  # fmt: skip


def hostile():
    """A hypothesis strategy of such values, and of mixtures of them."""
    leaves = st.one_of(
        st.sampled_from(WRONG), st.integers(), st.floats(), st.text(max_size=20), st.booleans(), st.none()
    )
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3)
    )


@dataclass(frozen=True)
class Answer:
    """What a call of the command line came to.

    Attributes:
        status: its exit status; 1 where an exception escaped.
        said: what it wrote to stderr.
        escaped: the traceback of that exception; empty for none.
    """

    status: int
    said: str
    escaped: str

    @property
    def sentence(self):
        """Whether it is one sentence with exit status 2, as bad input must be answered."""
        lines = [line for line in self.said.splitlines() if line.startswith("keyorbit: ")]
        return self.status == 2 and not self.escaped and len(lines) == 1


def answer(*words):
    """Call the command line in this process."""
    before, said = sys.argv, io.StringIO()
    sys.argv = ["keyorbit", *map(str, words)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as end:
        return Answer(int(end.code or 0), said.getvalue(), "")
    except BaseException:
        return Answer(1, said.getvalue(), traceback.format_exc())
    finally:
        sys.argv = before
    return Answer(0, said.getvalue(), "")
