"""Shapes and types in keyorbit's signatures are checked while the tests run, and only then."""

import jaxtyping

# Before anything imports keyorbit: modules already imported would go unchecked.
jaxtyping.install_import_hook("keyorbit", "beartype.beartype")
