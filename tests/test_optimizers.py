"""The scalars of every solver against formulas written by hand, and the state that training on depends on."""

import math
import pickle

import numpy as np
import pytest

from fastmlp import MLPClassifier
from fastmlp.kernels import formulas
from fastmlp.model.network import Network
from fastmlp.training.factors import LEARNING_RATES, Factors
from fastmlp.training.optimizers import (
    SOLVERS,
    STOCHASTIC_SOLVERS,
    NAdam,
    Optimizer,
    describe,
    make_optimizer,
    rebuild,
)

NETWORK = Network((4, 3), (), "log_loss", np.dtype(np.float64))
PARAMS = MLPClassifier(learning_rate_init=0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-6, momentum=0.7).get_params()
B1, B2, LR, EPS = 0.8, 0.99, 0.01, 1e-6


def make(solver, n_steps_per_epoch=10, max_iter=20, **changes):
    return make_optimizer(solver, NETWORK, {**PARAMS, **changes}, n_steps_per_epoch, max_iter)


def table(optimizer, n):
    """The next n steps, as a list of dicts of scalars; t moves on as an engine moves it."""
    rows = optimizer.scalars(n)
    assert rows.shape == (n, len(formulas.OPTIMIZERS[optimizer.rule].scalars))
    assert rows.dtype == np.float64 and rows.flags.c_contiguous
    optimizer.t += n
    return [dict(zip(formulas.OPTIMIZERS[optimizer.rule].scalars, row.tolist(), strict=True)) for row in rows]


def moments(t):
    return {"root_2": math.sqrt(1 - B2**t), "beta_1": B1, "beta_2": B2, "epsilon": EPS}


def nadam(t, decay=4e-3):
    def mu(s):
        return B1 * (1 - 0.5 * 0.96 ** (s * decay))

    product = math.prod(mu(s) for s in range(1, t + 1))
    return {
        "step_g": LR * (1 - mu(t)) / (1 - product),
        "step_m": LR * mu(t + 1) / (1 - product * mu(t + 1)),
        **moments(t),
    }


# solver -> (rule, scalars of step t)
EXPECTED = {
    "sgd": ("nesterov", lambda t: {"lr": LR, "momentum": 0.7}),
    "momentum": ("momentum", lambda t: {"lr": LR, "momentum": 0.7}),
    "nesterov": ("nesterov", lambda t: {"lr": LR, "momentum": 0.7}),
    "adam": (
        "adam",
        lambda t: {"lr": LR * math.sqrt(1 - B2**t) / (1 - B1**t), "beta_1": B1, "beta_2": B2, "epsilon": EPS},
    ),
    "adamw": ("adamw", lambda t: {"step_size": LR / (1 - B1**t), **moments(t)}),
    "amsgrad": ("amsgrad", lambda t: {"step_size": LR / (1 - B1**t), **moments(t)}),
    "nadam": ("nadam", nadam),
    "rmsprop": ("rmsprop", lambda t: {"lr": LR, "rho": 0.99, "epsilon": EPS}),
    "adagrad": ("adagrad", lambda t: {"lr": LR, "epsilon": EPS}),
    "adadelta": ("adadelta", lambda t: {"lr": LR, "rho": 0.9, "epsilon": EPS}),
    "lion": ("lion", lambda t: {"lr": LR, "beta_1": B1, "beta_2": B2}),
}


def test_all_solvers_are_here():
    assert set(EXPECTED) == set(STOCHASTIC_SOLVERS)


@pytest.mark.parametrize("solver", EXPECTED)
def test_scalars(solver):
    rule, expected = EXPECTED[solver]
    optimizer = make(solver)
    assert optimizer.rule == rule
    assert [state.shape for state in optimizer.states] == [(NETWORK.n_params,)] * len(formulas.OPTIMIZERS[rule].states)
    got = [row for n in (3, 1, 40, 1200) for row in table(optimizer, n)]
    for t in (1, 2, 3, 4, 5, 44, 45, 500, 1244):
        assert list(got[t - 1]) == list(formulas.OPTIMIZERS[rule].scalars)
        assert got[t - 1] == pytest.approx(expected(t), rel=1e-13), t


@pytest.mark.parametrize(
    "momentum, nesterovs, rule", [(0, True, "sgd"), (0.5, False, "momentum"), (1, True, "nesterov")]
)
def test_sgd_is_as_scikit_learn_has_it(momentum, nesterovs, rule):
    assert make("sgd", momentum=momentum, nesterovs_momentum=nesterovs).rule == rule


def test_momentum_by_name_is_never_plain():
    optimizer = make("momentum", momentum=0)
    assert optimizer.rule == "momentum"
    assert table(optimizer, 1) == [{"lr": LR, "momentum": 0.0}]


@pytest.mark.parametrize("solver, default", [("rmsprop", 0.99), ("adadelta", 0.9)])
def test_rho(solver, default):
    assert table(make(solver), 1)[0]["rho"] == table(make((solver, {})), 1)[0]["rho"] == default
    assert table(make((solver, {"rho": 0.0})), 1)[0]["rho"] == 0.0


def test_momentum_decay():
    assert table(make(("nadam", {"momentum_decay": 0.3})), 9)[8] == pytest.approx(nadam(9, 0.3), rel=1e-13)


# what scikit-learn's constructor has too -> another value than in PARAMS
SHARED = {"momentum": 0.35, "beta_1": 0.6, "beta_2": 0.95, "epsilon": 1e-3}


@pytest.mark.parametrize(
    "solver, name", [(solver, name) for solver in EXPECTED for name in SOLVERS[solver].parameters if name in SHARED]
)
def test_a_pair_counts_before_the_constructor(solver, name):
    by_pair, by_constructor = make((solver, {name: SHARED[name]})), make(solver, **{name: SHARED[name]})
    assert by_pair.rule == by_constructor.rule
    assert table(by_pair, 50) == table(by_constructor, 50) != table(make(solver), 50)
    assert table(make((solver, {name: None})), 50) == table(make(solver), 50)  # left to the constructor


@pytest.mark.parametrize("momentum, rule", [(0, "sgd"), (0.5, "nesterov")])
def test_the_rule_of_sgd_follows_the_pair(momentum, rule):
    assert make(("sgd", {"momentum": momentum}), momentum=0.5 - momentum).rule == rule


def test_solvers_have_every_scalar_that_no_step_changes():
    steps = {"lr", "step_size", "step_g", "step_m", "root_2"}
    for solver, row in formulas.OPTIMIZERS.items():
        assert set(row.scalars) - steps <= SOLVERS[solver].parameters.keys(), solver
    assert SOLVERS["lbfgs"].parameters == {}
    assert all(row.parameters.keys() == row.ranges.keys() for row in SOLVERS.values())


@pytest.mark.parametrize("solver", ["adam", "adamw", "amsgrad", "nadam", "lion"])
def test_betas_may_be_zero(solver):
    rows = table(make(solver, beta_1=0, beta_2=0), 3)
    assert all(math.isfinite(value) for row in rows for value in row.values())


# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", EXPECTED)
@pytest.mark.parametrize("choice", ["cosine", "exponential", ("step", {"step_size": 2}), lambda p: 1 - p / 2])
def test_every_solver_follows_a_schedule(solver, choice):
    optimizer, constant = make(solver, learning_rate=choice), make(solver)
    rates = optimizer.schedule.rates(np.arange(200.0))
    sizes = [
        name for name in ("lr", "step_size", "step_g", "step_m") if name in formulas.OPTIMIZERS[optimizer.rule].scalars
    ]
    got, plain = table(optimizer, 200), table(constant, 200)
    for name in sizes:
        factors = [row[name] / reference[name] for row, reference in zip(got, plain, strict=True)]
        np.testing.assert_allclose(factors, rates / LR, rtol=1e-12)
    assert optimizer.scheduled_rate == rates[-1]


@pytest.mark.parametrize("solver", sorted(set(EXPECTED) - {"adam"}))
def test_invscaling(solver):
    optimizer = make(solver, learning_rate="invscaling", power_t=0.6)
    table(optimizer, 10)
    assert optimizer.scheduled_rate == LR
    optimizer.after_epoch(1000)
    assert optimizer.scheduled_rate == LR / 1001**0.6
    t = optimizer.t + 1
    scaled = {name: value / 1001**0.6 if name.startswith(("lr", "step")) else value
              for name, value in EXPECTED[solver][1](t).items()}  # fmt: skip
    assert table(optimizer, 1)[0] == pytest.approx(scaled, rel=1e-13)


@pytest.mark.parametrize("solver", sorted(set(EXPECTED) - {"adam"}))
def test_adaptive(solver):
    optimizer = make(solver, learning_rate="adaptive")
    table(optimizer, 10)
    assert optimizer.on_plateau() == (False, f" Setting learning rate to {LR / 5:f}")
    assert optimizer.scheduled_rate == LR / 5
    assert optimizer.scalars(1)[0, 0] == pytest.approx(make(solver, learning_rate_init=LR / 5).scalars(11)[10, 0])


@pytest.mark.parametrize("choice", ["invscaling", "adaptive"])
def test_adam_ignores_what_scikit_learns_adam_ignores(choice):
    optimizer = make("adam", learning_rate=choice)
    optimizer.after_epoch(1000)
    assert optimizer.on_plateau() == (True, " Stopping.")
    np.testing.assert_array_equal(optimizer.scalars(5), make("adam").scalars(5))


def test_plateau():
    optimizer = make("adamw", learning_rate=("plateau", {"patience": 0}))
    for score in (0.5, 0.6):
        table(optimizer, 10)
        optimizer.after_score(score, higher_is_better=True)
    assert optimizer.scheduled_rate == LR
    optimizer.after_score(0.6, higher_is_better=True)
    assert optimizer.scheduled_rate == pytest.approx(LR / 10)
    assert table(optimizer, 1)[0]["step_size"] == pytest.approx(LR / 10 / (1 - B1**21))


def test_learning_rate_before_the_first_step():
    assert make("adam").learning_rate == make("adam").scheduled_rate == LR
    assert make("sgd", learning_rate="one_cycle").scheduled_rate == pytest.approx(10 * LR / 25)


def test_adams_learning_rate_has_the_corrections():
    optimizer = make("adam")
    table(optimizer, 7)
    assert optimizer.learning_rate == pytest.approx(EXPECTED["adam"][1](7)["lr"], rel=1e-14)
    assert optimizer.scheduled_rate == LR


# --- weight decay, clipping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", EXPECTED)
def test_decays(solver):
    default = make(solver).decays(4)
    if solver == "adamw":
        np.testing.assert_array_equal(default, np.full(4, LR * 0.01))
    else:
        assert default is None
    assert make(solver, weight_decay=0.0).decays(4) is None
    optimizer = make(solver, weight_decay=0.1, learning_rate="cosine")
    expected = 0.1 * optimizer.schedule.rates(np.arange(40.0))
    got = []
    for n in (1, 9, 30):
        got += optimizer.decays(n).tolist()
        table(optimizer, n)
    np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_max_grad_norm():
    assert make("adam").max_grad_norm is None
    assert make("adam", max_grad_norm=2).max_grad_norm == 2.0


def test_parameters_that_a_caller_does_not_know_have_defaults():
    """Estimators of scikit-learn's parameters alone will do."""
    few = {name: PARAMS[name] for name in ("learning_rate", "learning_rate_init", "power_t", "momentum", "max_iter",
                                           "nesterovs_momentum", "beta_1", "beta_2", "epsilon")}  # fmt: skip
    for solver, (_, expected) in EXPECTED.items():
        optimizer = make_optimizer(solver, NETWORK, few)
        assert table(optimizer, 1)[0] == pytest.approx(expected(1))


# --- factors of segments, schedules of decay and dropout --------------------------------------------------------------

#: Segments W0, W1, b0, b1, prelu's slope.
DEEP = Network((4, 5, 3), ("prelu",), "log_loss", np.dtype(np.float64), dropout=(0.4,))
FACTORS = Factors(lr=[1.0, 2.0, 0.5, 0.0, 3.0], decay=[1.0, 4.0, 0.0, 0.0, 0.25], epsilon=[1.0, 8.0, 1.0, 2.0, 5.0])


def deep(solver="adamw", factors=None, **changes):
    return make_optimizer(solver, DEEP, {**PARAMS, **changes}, 10, 20, factors)


@pytest.mark.parametrize("solver", EXPECTED)
def test_a_segment_has_the_scalars_of_its_own_rate_and_epsilon(solver):
    """The product with the factors is what a training with the segment's own rate and epsilon has."""
    optimizer = deep(solver, FACTORS)
    assert len(DEEP.segments) == 5 and optimizer.factors.dtype == np.float64
    got = optimizer.scalars(30)[:, None, :] * optimizer.factors  # (steps, segments, scalars)
    for k, (lr, epsilon) in enumerate(zip(FACTORS.lr, FACTORS.epsilon, strict=True)):
        if lr:
            own = deep(solver, learning_rate_init=LR * lr, epsilon=EPS * epsilon)
            np.testing.assert_allclose(got[:, k], own.scalars(30), rtol=1e-13)
    rates = [name in LEARNING_RATES for name in formulas.OPTIMIZERS[optimizer.rule].scalars]
    assert (got[:, 3, rates] == 0).all()


def test_the_rates_among_the_scalars_are_known():
    """A new rule must say which of its scalars follow the learning rate."""
    for solver in STOCHASTIC_SOLVERS:
        once, twice = deep(solver).scalars(9), deep(solver, learning_rate_init=2 * LR).scalars(9)
        names = formulas.OPTIMIZERS[deep(solver).rule].scalars
        follow = [name for name, ratio in zip(names, (twice / once).mean(axis=0), strict=True) if ratio > 1.5]
        assert follow == [name for name in names if name in LEARNING_RATES]


def test_the_decay_of_a_segment():
    optimizer = deep(factors=FACTORS, weight_decay=0.1)
    np.testing.assert_array_equal(optimizer.decay_factors, FACTORS.decay)
    np.testing.assert_array_equal(optimizer.decays(5), deep(weight_decay=0.1).decays(5))
    assert deep(factors=FACTORS, weight_decay=0.0).decay_factors is None  # nothing to multiply


def test_nothing_asked_is_nothing_to_multiply():
    for optimizer in (deep(), deep(factors=Factors()), deep(factors=Factors(lr=np.ones(5)))):
        assert optimizer.factors is None and optimizer.decay_factors is None and optimizer.dropouts(5) is None
    assert deep("sgd", Factors(epsilon=FACTORS.epsilon)).factors is None  # a rule without epsilon


@pytest.mark.parametrize(
    "factors, words",
    [
        (Factors(lr=[1.0, 2.0]), r"factors.lr must hold 5 finite numbers >= 0, one per segment, got \[1.0, 2.0\]"),
        (Factors(decay=[1, 1, 1, 1, -1]), "factors.decay must hold 5 finite numbers >= 0"),
        (Factors(lr=[1, 1, 1, 1, np.nan]), "factors.lr must hold"),
        (Factors(epsilon=[1, 1, 1, 1, 0]), "factors.epsilon must hold 5 finite numbers > 0"),
    ],
)
def test_wrong_factors(factors, words):
    with pytest.raises(ValueError, match=words):
        deep(factors=factors)


def flat_cos(n=200):
    p = np.arange(n) / 200
    return np.where(p < 0.5, 1, 0.5 * (1 + np.cos(np.pi * (p - 0.5) / 0.5)))


def test_schedules_multiply_decay_and_dropout():
    optimizer = deep(
        weight_decay=0.1, learning_rate="cosine", weight_decay_schedule="flat_cos", dropout_schedule=lambda p: 1 - p
    )
    rate = deep(learning_rate="cosine").schedule.rates(np.arange(200.0))
    decays, dropouts = [], []
    for n in (1, 19, 180):
        decays += optimizer.decays(n).tolist()
        dropouts.append(optimizer.dropouts(n))
        optimizer.t += n
    np.testing.assert_allclose(decays, 0.1 * rate * flat_cos(), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(np.concatenate(dropouts), 1 - np.arange(200) / 200, rtol=1e-15)
    assert dropouts[0].dtype == np.float64 and dropouts[2].flags.c_contiguous


def test_schedules_of_what_there_is_not_are_left_out():
    plain = make("adamw", weight_decay=0.0, weight_decay_schedule="flat_cos", dropout_schedule="flat_cos")
    assert plain.shares == {} and plain.dropouts(3) is None and plain.decays(3) is None
    with pytest.raises(ValueError, match="dropout_schedule='adaptive' is unknown"):  # which is refused all the same
        make("adamw", dropout_schedule="adaptive")


def test_batches_left_out_count_for_the_schedules():
    optimizer = deep(dropout_schedule="flat_cos")
    optimizer.leave_out(150)
    np.testing.assert_allclose(optimizer.dropouts(3), flat_cos()[150:153], rtol=1e-12)


def rich():
    shares = {"weight_decay_schedule": ("flat_cos", {"flat": 0.1}), "dropout_schedule": "cosine"}
    return deep("nadam", FACTORS, weight_decay=0.1, learning_rate="coslog4", **shares)


def taken(optimizer):
    return [
        optimizer.scalars(9),
        optimizer.decays(9),
        optimizer.dropouts(9),
        optimizer.factors,
        optimizer.decay_factors,
    ]


@pytest.mark.parametrize(
    "again",
    [
        lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
        lambda optimizer: rebuild(describe(optimizer), DEEP),
        lambda optimizer: (fresh := rich(), fresh.set_state(optimizer.get_state()))[0],
    ],
    ids=["pickle", "file", "state"],
)
def test_factors_and_schedules_are_kept(again):
    optimizer = rich()
    optimizer.t = 95
    for ours, theirs in zip(taken(again(optimizer)), taken(optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_optimizers_of_an_earlier_version_have_neither():
    state = rich().__getstate__()
    for name in ("given_factors", "factors", "decay_factors", "shares"):
        state.pop(name)
    old = Optimizer.__new__(NAdam)
    old.__setstate__(state)
    assert old.factors is None and old.decay_factors is None and old.dropouts(3) is None
    assert not {"factors", "shares"} & describe(old).keys() and not {"factors", "shares"} & describe(deep()).keys()


def test_a_function_is_in_no_file():
    with pytest.raises(TypeError, match="the schedule of dropout of this optimizer is a function"):
        describe(deep(dropout_schedule=lambda p: 1 - p))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"factors": {"momentum": np.ones(5)}}, "factors must hold arrays for some of"),
        ({"factors": {"lr": [1.0] * 5}}, "factors must hold arrays for some of"),
        ({"factors": {"lr": np.ones(4)}}, "factors.lr must hold 5 finite numbers"),
        ({"shares": {"alpha": {}}}, r"shares must be of \['weight_decay', 'dropout'\], got \['alpha'\]"),
        ({"shares": {"dropout": {"name": "plateau", "values": {}}}}, "is unknown"),
        ({"shares": {"dropout": {"name": "cosine", "values": {}, "initial": 2.0}}}, "begins with 1, got 2.0"),
    ],
)
def test_wrong_factors_and_schedules_in_a_file(change, words):
    with pytest.raises(ValueError, match=words):
        rebuild(describe(rich()) | change, DEEP)


# --- the state --------------------------------------------------------------------------------------------------------


def epoch(optimizer, number, n=13):
    """What an engine and training do to an optimizer; returns the scalars."""
    rows = optimizer.scalars(n).copy()
    optimizer.t += n
    for k, state in enumerate(optimizer.states):
        state += k + rows[0, 0]
    optimizer.after_score(1.0 / min(number, 5))
    optimizer.after_epoch(100 * number)
    if number % 9 == 8:
        optimizer.on_plateau()
    return rows


@pytest.mark.parametrize("choice", ["constant", "adaptive", "invscaling", "plateau", "cosine", lambda p: 1 - p])
@pytest.mark.parametrize("solver", EXPECTED)
def test_training_goes_on_bit_for_bit(solver, choice):
    def make_one():
        return make(solver, 13, 40, learning_rate=choice, weight_decay=0.1)

    whole = make_one()
    expected = np.concatenate([epoch(whole, number) for number in range(1, 200)])
    first = make_one()
    before = [epoch(first, number) for number in range(1, 93)]
    state = first.get_state()
    epoch(first, 93)  # the state is a copy
    again = make_one()
    again.set_state(pickle.loads(pickle.dumps(state)))
    got = np.concatenate([*before, *(epoch(again, number) for number in range(93, 200))])
    np.testing.assert_array_equal(got, expected)
    assert again.t == whole.t
    for ours, theirs in zip(again.states, whole.states, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("solver", EXPECTED)
def test_pickle_goes_on_bit_for_bit(solver):
    optimizer = make(solver, learning_rate="cosine")
    optimizer.scalars(13)
    optimizer.t += 13
    again = pickle.loads(pickle.dumps(optimizer))
    np.testing.assert_array_equal(again.scalars(20), optimizer.scalars(20))
    assert len(pickle.dumps(make("sgd"))) < 2000


def test_set_state_keeps_the_vectors():
    """Engines and training may hold them."""
    optimizer = make("adam")
    held = list(optimizer.states)
    optimizer.set_state(make("adam").get_state())
    assert all(now is then for now, then in zip(optimizer.states, held, strict=True))


def test_the_state_of_another_optimizer():
    with pytest.raises(ValueError, match="the saved optimizer is 'adam' with state vectors of shapes"):
        make("adamw").set_state(make("adam").get_state())
    other = make_optimizer("adam", Network((5, 3), (), "log_loss", np.dtype(np.float64)), PARAMS)
    with pytest.raises(ValueError, match=r"\(18,\)"):
        make("adam").set_state(other.get_state())


def test_nadams_product_is_right_wherever_it_is_asked_from():
    optimizer = make("nadam")
    for t in (700, 30, 5000):
        optimizer.t = t
        optimizer._forget()
        assert table(optimizer, 1)[0] == pytest.approx(nadam(t + 1), rel=1e-12)


# --- cost, errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_short_epochs_share_a_table(solver):
    optimizer = make(solver)
    first = optimizer.scalars(5)
    for _ in range(100):
        optimizer.t += 5
        optimizer.after_epoch(10)
        assert np.shares_memory(optimizer.scalars(5), optimizer._table)
    assert np.shares_memory(first, optimizer._table)
    optimizer.t += Optimizer.BLOCK
    assert not np.shares_memory(first, optimizer.scalars(5))


def test_an_unknown_solver():
    with pytest.raises(ValueError, match=r"solver='lbfgs' is unknown; valid are .*'lion'"):
        make("lbfgs")


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="learning_rate='cyclic' is unknown"):
        make("rmsprop", learning_rate="cyclic")
