"""What mkdocs calls while it builds the pages: roles of docstrings, such as :func:`name`, become code."""

import re

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>~?([^<]*)</code>")


def on_page_content(html, **_):
    """Return the page without roles; of a name's path, its last part is shown, and the whole on hover."""
    return ROLE.sub(lambda found: f'<code title="{found[1]}">{found[1].rpartition(".")[2]}</code>', html)
