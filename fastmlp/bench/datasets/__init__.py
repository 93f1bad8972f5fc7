"""The tables of `fastmlp bench tabular`: files that packages on PyPI ship -> a frame and its target -> seeded splits.

| file | what it holds |
|---|---|
| `declared.py` | the table of tables: where each is, its target, its columns |
| `packages.py` | a package's files, read without an import of the package |
| `reading.py` | a file -> `Frame`: features as a pandas DataFrame, and the target |
| `splits.py` | a `Frame` cut to size and split; the file that hands it to the workers |

Nothing is downloaded. `packages.py` also reads wheels that are not installed.
"""
