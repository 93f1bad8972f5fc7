"""Names that people write from memory or bring from other libraries, and the names that they have here.

The one table is ``FOREIGN``. A hint is the end of an error's text: constructors, ``set_params``, ``fit``, choices with
parameters and the command line all get it from :func:`hint`. Nothing here runs unless there is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Names here -> what other libraries call them. Case, ``_``, ``-`` and spaces do not matter.
FOREIGN: dict[str, str] = {
    # parameters of the estimators
    "hidden_layer_sizes": "hidden hiddens hidden_size hidden_sizes hidden_dim hidden_dims hidden_units hidden_layers"
    " hidden_layer_dims layers layer_sizes layer_dims units n_units n_hidden num_hidden n_neurons neurons net_arch"
    " hidden_layer_units hidden_channels width widths",
    "activation": "act activation_fn activation_fun activation_function activations nonlinearity hidden_activation"
    " transfer_function",
    "loss": "criterion loss_fn loss_func loss_function objective cost cost_function",
    "solver": "optimizer optimiser optim opt optimizer_fn algorithm updater",
    "alpha": "l2 l2_reg l2_regularization l2_penalty lambda lambda_l2 reg_lambda reg regularization kernel_regularizer",
    "l1_ratio": "l1 l1_reg lambda_l1 reg_alpha",
    "weight_decay": "wd decoupled_weight_decay",
    "weight_decay_schedule": "wd_schedule wd_sched weight_decay_scheduler",
    "dropout_schedule": "p_drop_sched dropout_scheduler",
    "batch_size": "batch mini_batch minibatch mini_batch_size train_batch_size bs",
    "learning_rate_init": "lr eta eta0 lr0 base_lr init_lr lr_init initial_lr initial_learning_rate learn_rate",
    "learning_rate": "lr_schedule lr_scheduler scheduler schedule lr_policy learning_rate_schedule",
    "max_iter": "epochs epoch n_epochs num_epochs max_epochs nb_epoch nb_epochs n_iter num_iter iterations"
    " n_iterations",
    "random_state": "seed random_seed rng rng_seed manual_seed",
    "tol": "min_delta tolerance",
    "verbose": "verbosity",
    "nesterovs_momentum": "nesterov use_nesterov",
    "early_stopping": "early_stop earlystopping use_early_stopping",
    "validation_fraction": "validation_split val_split valid_split val_size valid_size validation_size val_fraction"
    " test_size valid_frac",
    "n_iter_no_change": "patience early_stopping_rounds early_stopping_patience stopping_rounds od_wait",
    "epsilon": "eps adam_epsilon",
    "backend": "device engine framework task_type",
    "n_jobs": "n_threads num_threads nthread nthreads threads num_workers n_workers thread_count",
    "max_grad_norm": "clip clipnorm clip_norm grad_clip gradient_clip gradient_clip_val gradient_clipping clip_grad"
    " clip_grad_norm max_norm clip_gradient",
    "dropout": "dropout_rate drop_rate drop hidden_dropout dropout_p dropout_prob dropouts",
    "input_dropout": "feature_dropout dropout_in input_dropout_rate",
    "batch_norm": "bn batchnorm1d use_bn use_batch_norm use_batchnorm batch_normalization batch_normalisation",
    "init": "initializer weight_init kernel_initializer init_method weights_init initialization initialisation"
    " weight_initializer",
    "fit_intercept": "bias use_bias intercept has_bias",
    "frozen_layers": "frozen freeze freeze_layers fixed_layers non_trainable_layers",
    "monitor": "metric metrics eval_metric scoring score scorer validation_metric",
    "restore_best": "restore_best_weights keep_best load_best use_best_model load_best_model_at_end",
    "callbacks": "callback hooks",
    "matmul_precision": "float32_matmul_precision matmul_prec default_matmul_precision mixed_precision amp precision",
    "standardize_y": "normalize_y scale_y standardise_y scale_targets normalize_targets target_scaling y_scaler",
    "class_weight": "class_weights classes_weight scale_pos_weight class_weighting",
    # arguments of fit
    "X": "x_train features data inputs train_x train_data",
    "y": "y_train target targets labels label train_y",
    "sample_weight": "weight weights w sample_weights sample_weight_train",
    "X_val": "x_valid x_validation valid_x val_x",
    "y_val": "y_valid y_validation valid_y val_y",
    "sample_weight_val": "sample_weight_eval_set eval_sample_weight val_sample_weight",
    "eval_set": "validation_data val_data valid_data eval_sets evals evaluation_set valid_sets valid_set",
    "coef_init": "coefs coefs_init init_coef",
    "intercept_init": "intercepts intercepts_init bias_init",
    "resume_from": "resume checkpoint ckpt_path init_model xgb_model",
    # solvers
    "sgd": "gd gradient_descent stochastic_gradient_descent",
    "lbfgs": "lbfgsb bfgs quasi_newton",
    "nadam": "nesterov_adam",
    # activations
    "logistic": "sigmoid sigm expit logit",
    "silu": "swish",
    "identity": "linear none",
    "leaky_relu": "lrelu leaky",
    "rrelu": "randomized_leaky_relu randomised_leaky_relu random_leaky_relu randomized_relu",
    "softplus": "smooth_relu",
    "gelu_tanh": "gelu_new gelu_fast gelu_approximate approximate_gelu",
    "hardsigmoid": "hsigmoid",
    "hardswish": "hswish hard_silu",
    "hardtanh": "htanh clipped_linear",
    "step": "heaviside threshold binary_step step_lr",
    # losses
    "log_loss": "cross_entropy ce cce bce nll nll_loss log categorical_cross_entropy sparse_categorical_cross_entropy"
    " binary_cross_entropy softmax_cross_entropy bce_with_logits bce_with_logits_loss cross_entropy_loss deviance"
    " multi:softmax multi:softprob binary:logistic bce_loss categorical negative_log_likelihood",
    "focal": "focal_loss sigmoid_focal_loss binary_focal_crossentropy categorical_focal_crossentropy",
    "perceptron": "perceptron_loss",
    "hinge": "hinge_loss categorical_hinge multi_margin_loss",
    "squared_hinge": "squared_hinge_loss",
    "squared_error": "mse mse_loss l2 l2_loss mean_squared_error ls least_squares squared_loss square rmse"
    " root_mean_squared_error reg:squarederror regression",
    "absolute_error": "mae mae_loss l1 l1_loss mean_absolute_error lad absolute reg:absoluteerror regression_l1",
    "huber": "huber_loss smooth_l1 smooth_l1_loss",
    "log_cosh": "log_cosh_loss",
    "quantile": "pinball pinball_loss quantile_loss",
    "poisson": "poisson_loss poisson_nll poisson_nll_loss poisson_deviance count:poisson",
    "gamma": "gamma_loss gamma_deviance reg:gamma",
    "kl_divergence": "kl kld kl_div kl_div_loss kld_loss kullback_leibler kullback_leibler_divergence relative_entropy",
    # schedules
    "exponential": "exponential_decay exponential_lr exp",
    "cosine": "cosine_annealing cosine_decay cosine_annealing_lr",
    "cosine_restarts": "cosine_decay_restarts cosine_annealing_warm_restarts sgdr",
    "one_cycle": "1cycle one_cycle_lr",
    "plateau": "reduce_on_plateau reduce_lr_on_plateau",
    "invscaling": "inverse_scaling inverse_time inverse_time_decay",
    "constant": "fixed none constant_lr",
    "warmup_cosine": "cosine_warmup cosine_with_warmup",
    "flat_cos": "flat_cosine flat_anneal flat_and_anneal",
    # initial weights
    "glorot_uniform": "xavier xavier_uniform glorot",
    "glorot_normal": "xavier_normal",
    "he_uniform": "he kaiming kaiming_uniform",
    "he_normal": "kaiming_normal",
    "lecun_uniform": "lecun",
    "pytorch": "torch torch_default pytorch_default nn_linear nn.linear",
    "orthogonal": "orthogonal_init",
    "auto": "default",
    # engines
    "cuda": "gpu cuda:0 nvidia",
    "cython": "cpu c compiled",
    "reference": "numpy np",
    # scorers
    "accuracy": "acc accuracy_score categorical_accuracy",
    "roc_auc": "auc auroc roc_auc_score",
    "f1": "f1_score",
    "r2": "r2_score",
    "neg_log_loss": "logloss log_loss cross_entropy",
    "neg_mean_squared_error": "mse mean_squared_error",
    "neg_mean_absolute_error": "mae mean_absolute_error",
    "neg_root_mean_squared_error": "rmse root_mean_squared_error",
    "score": "val_score validation_score",
}


def meant(name: Any, valid: Iterable[str]) -> str | None:
    """Return which of the valid names was probably meant: spelt otherwise, called so elsewhere, or misspelt.

    Examples
    --------
    >>> from fastmlp.model.spelling import meant
    >>> meant("adamW", ["adam", "adamw"]), meant("mse", ["huber", "squared_error"]), meant("rellu", ["relu", "elu"])
    ('adamw', 'squared_error', 'relu')
    >>> meant("nonsense", ["relu", "elu"]) is None
    True
    """
    from difflib import get_close_matches  # 2 ms, and only for errors

    if not isinstance(name, str) or not name:
        return None
    valid = list(valid)
    plain = {_plain(known): known for known in valid}
    if _plain(name) in plain:
        return plain[_plain(name)]
    for known in valid:
        if _plain(name) in map(_plain, FOREIGN.get(known, "").split()):
            return known
    close = get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def hint(name: Any, valid: Iterable[str]) -> str:
    """Return the end of an error about an unknown name, ``"; did you mean 'alpha'?"``, or no text."""
    found = meant(name, valid)
    return "" if found is None else f"; did you mean {found!r}?"


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "_- ")
