"""Sphinx settings of the documentation site.

``python -m sphinx -W --keep-going -b html docs docs/_build/html``, with the packages of the ``docs`` extra, builds it
from the Markdown pages here and the docstrings of the package.
"""

import re

import fastmlp

project = "fastmlp"
author = "The fastmlp developers"
copyright = author
release = version = fastmlp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
]
root_doc = "index"
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# --- pages ------------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to #headings, as on a code host

# --- reference --------------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say more
toc_object_entries_show_parents = "hide"  # fit(), not MLPClassifier.fit(), in the margin
numpydoc_show_class_members = False  # the templates list the members, and autodoc documents them
# scikit-learn's own machinery, which its documentation explains
autosummary_context = {
    "hidden": [
        "get_metadata_routing",
        "get_params",
        "set_callbacks",
        "set_fit_request",
        "set_params",
        "set_partial_fit_request",
        "set_score_request",
    ]
}


def setup(app):
    """Links of inherited docstrings to pages of scikit-learn's own site become plain text."""

    def unlink(app, what, name, obj, options, lines):
        text = "\n".join(lines)
        text = re.sub(r":ref:`([^`<]+?)\s*<[^>]+>`", r"\1", text)
        lines[:] = text.split("\n")

    app.connect("autodoc-process-docstring", unlink)


# --- looks ------------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"fastmlp {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2563a8", "color-brand-content": "#2563a8"},
    "dark_css_variables": {"color-brand-primary": "#7fb3ea", "color-brand-content": "#7fb3ea"},
}
