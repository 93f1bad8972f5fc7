"""The commands that work on data files and models: `fastmlp train`, `predict`, `show` and `export`.

- ``output.py``: tables, JSON, exit codes, one-line errors; for all commands;
- ``parameters.py``: the estimators' parameters as options of `train`;
- ``arguments.py``: options that several commands have;
- ``train.py``, ``predict.py``, ``show.py``, ``export.py``: a command each; cli.py registers them.

They parse options and call fastmlp.tabular, the estimators and fastmlp.persistence; nothing is computed here.
scikit-learn and pyarrow are imported when a command runs.
"""
