"""Training: epochs and stopping rules around an engine.

Reading order: run.py (epochs around ``train_epoch``), order.py (shuffles of blocks of rows), lbfgs.py (L-BFGS around
``loss_and_grad``), state.py (what the next epoch needs), stopping.py (when it ends), many.py (several trainings side by
side), together.py (those whose epochs go into one call of an engine), in_step.py (those that are judged by their mean);
given_sets.py (validation rows as users give them), validation.py (which rows are evaluated), metrics.py (what is
measured of them), head.py (their loss), history.py (all epochs); diagnosis.py (which formula gave NaN), weightless.py
(batches without weight), standardized.py (targets in units of their standard deviation); optimizers.py, schedules.py
and factors.py (the scalars of each step); attributes.py (fitted attributes, a row each), snapshots.py and checkpoint.py
(a training as arrays; its file); callbacks.py, foreign_callbacks.py (those of other libraries, recognised),
sklearn_callbacks.py, progress.py; learning_rate_finder.py (the range test); rows.py (loss, gradient and outputs of
layers of some rows), recorder.py (what happens inside).
"""
