"""Sphinx settings of the documentation site.

``python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html``, with the packages of the ``docs`` extra,
builds it from the Markdown pages here and the docstrings of the package. The pages of the course are notebooks: the
build runs them, and fails where a cell fails.
"""

import re
import shutil
from pathlib import Path

import fastmlp

project = "fastmlp"
author = "The fastmlp developers"
copyright = author
release = version = fastmlp.__version__

extensions = [
    "myst_nb",  # myst_parser, and pages with code cells
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

# --- notebooks: docs/course -------------------------------------------------------------------------------------------

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds for a cell
nb_merge_streams = True
nb_code_prompt_show = nb_code_prompt_hide = "Solution"  # the only cells that are folded


def offer_notebook(app, page, template, context, doctree):
    """Put the notebook that the build has run beside its page, and a link to it below the title."""
    notebook = Path(app.outdir).parent / "jupyter_execute" / f"{page}.ipynb"  # where MyST-NB puts it
    if app.builder.format == "html" and notebook.exists():
        beside = Path(app.outdir, f"{page}.ipynb")
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(notebook, beside)
        link = f'<p class="notebook"><a href="{notebook.name}" download>This page as a notebook</a></p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


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
    """Connect the functions of this file; links of docstrings to pages of scikit-learn's own site become plain text."""

    def unlink(app, what, name, obj, options, lines):
        text = "\n".join(lines)
        text = re.sub(r":ref:`([^`<]+?)\s*<[^>]+>`", r"\1", text)
        text = re.sub(r":term:`~?([^`<]+?)(?:\s*<[^>]+>)?`", r"``\1``", text)
        lines[:] = text.split("\n")

    app.connect("autodoc-process-docstring", unlink)
    app.connect("html-page-context", offer_notebook)


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
