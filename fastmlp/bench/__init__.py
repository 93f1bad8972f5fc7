"""The benchmark behind `fastmlp bench`: results first, then times.

| file | what it holds |
|---|---|
| `settings.py` | what a run is asked for |
| `suites.py` | the table of suites; `run` them into one document |
| `quick.py`, `train.py`, `predict.py`, `cold.py`, `many.py`, `scaling.py`, `options.py`, `cuda.py` | one suite each |
| `precision.py` | the suite of `matmul_precision`: times, errors of products, ends of fits |
| `products.py` | the three products of a step, each by the smallest network that computes it |
| `turns.py` | trainers that take turns in one process, for `options` and `precision` |
| `tabular.py` | the suite of whole estimators on tables: errors beside times |
| `datasets/` | its tables: files of packages -> frames -> splits |
| `scores.py`, `standings.py` | ranks, ratios and tests; what the suite's records add up to |
| `engines.py` | engines of fastmlp side by side in `quick` and `train` |
| `workloads.py` | the nets and data of `train`, `predict`, `precision` and `cuda` |
| `rivals/` | the table of rivals, and how each trains and predicts |
| `processes.py`, `worker.py` | a question to a fresh process, and the process that answers |
| `race.py` | a run of a suite: rounds over rivals; same results or no times |
| `timing.py` | the clocks of the workers |
| `tables.py` | tables and charts as data, for terminal and page alike |
| `html.py`, `charts.py` | the page |
| `compare.py` | this run against an older one |

A suite is a module with a default number of `ROUNDS` and with `run(run)`, which asks and races by a `race.Run` and
gives plain containers ready for JSON, with `figures` to compare later. The settings and what went wrong are added to
them. `tables(result)` and `charts(result)` show the result. A suite may have `why_not()`, which says what it needs and
does not find. One that takes hours, `tabular`, hands what it has to `run.keep` after every answer, and goes on from
`run.held`. What runs inside a worker, `measure(request)`, stands in the same file, below what asks for it.
"""
