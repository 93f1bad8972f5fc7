"""The `fastmlp` command.

Reading order: app.py (the command, `info` and `bench`), arguments.py (options that several commands have), files.py
(what a command reads and writes, judged before it works), parameters.py (the estimators' parameters as options of
`train`), lazy.py (commands that load when they run); train.py, predict.py, evaluate.py, show.py, export.py (a command
on data files each), playground.py; fitting.py (one fit of `train`, and those of a cross-validation), cluster.py (fits
on a Dask cluster), scores.py (the metrics of `evaluate`); output.py (tables, JSON, exit codes, one-line errors).

Commands parse options and call fastmlp.tabular, the estimators, fastmlp.persistence and fastmlp.playground; nothing is
computed here.
scikit-learn and pyarrow are imported when a command runs.
"""
