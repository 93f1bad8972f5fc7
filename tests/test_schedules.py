"""Learning-rate schedules against PyTorch's, step by step, and against their closed forms."""

import pickle

import numpy as np
import pytest

from fastmlp.training import schedules
from fastmlp.training.schedules import SCHEDULES, SHARES, make_schedule, make_share

STEPS_PER_EPOCH, EPOCHS, RATE = 7, 24, 0.3
N = STEPS_PER_EPOCH * EPOCHS
PER_STEP = [name for name, row in SCHEDULES.items() if row.rates is not schedules.Stateful.rates]


def rates(choice, n=N, first=0, **kwargs):
    """Rates of steps first, first + 1, ..., float64 (n,)."""
    schedule = make_schedule(choice, RATE, n_steps_per_epoch=STEPS_PER_EPOCH, max_iter=EPOCHS, **kwargs)
    return np.broadcast_to(schedule.rates(np.arange(first, first + n, dtype=np.float64)), n)


# --- PyTorch ----------------------------------------------------------------------------------------------------------

# Ours -> its twin, stepped once per step, or once per epoch, or told the epoch as a fraction.
TWINS = {
    "step": ("step", lambda lr, opt: lr.StepLR(opt, 10), "epoch"),
    "step 3": (("step", {"step_size": 3, "gamma": 0.5}), lambda lr, opt: lr.StepLR(opt, 3, 0.5), "epoch"),
    "exponential": (("exponential", {"gamma": 0.9}), lambda lr, opt: lr.ExponentialLR(opt, 0.9), "epoch"),
    "cosine": ("cosine", lambda lr, opt: lr.CosineAnnealingLR(opt, N), "step"),
    "cosine to 0.01": (("cosine", {"eta_min": 0.01}), lambda lr, opt: lr.CosineAnnealingLR(opt, N, 0.01), "step"),
    "restarts": ("cosine_restarts", lambda lr, opt: lr.CosineAnnealingWarmRestarts(opt, 10), "fraction"),
    "longer restarts": (
        ("cosine_restarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.02}),
        lambda lr, opt: lr.CosineAnnealingWarmRestarts(opt, 3, 2, 0.02),
        "fraction",
    ),
    "one_cycle": (
        "one_cycle",
        lambda lr, opt: lr.OneCycleLR(opt, 10 * RATE, total_steps=N, cycle_momentum=False),
        "step",
    ),
    "another cycle": (
        ("one_cycle", {"max_lr": 2, "pct_start": 0.6, "div_factor": 5, "final_div_factor": 10}),
        lambda lr, opt: lr.OneCycleLR(opt, 2.0, N, None, None, 0.6, "cos", False, 0.85, 0.95, 5.0, 10.0),
        "step",
    ),
    "falling cycle": (
        ("one_cycle", {"pct_start": 0}),
        lambda lr, opt: lr.OneCycleLR(opt, 10 * RATE, total_steps=N, pct_start=0.0, cycle_momentum=False),
        "step",
    ),
}


def torch_optimizer(torch):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


@pytest.mark.parametrize("name", TWINS)
def test_pytorch_has_the_same_rates(name):
    torch = pytest.importorskip("torch")
    ours, make, clock = TWINS[name]
    optimizer = torch_optimizer(torch)
    twin = make(torch.optim.lr_scheduler, optimizer)
    theirs = []
    for step in range(N):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if clock == "fraction":
            twin.step((step + 1) / STEPS_PER_EPOCH)
        elif clock == "step" or (step + 1) % STEPS_PER_EPOCH == 0:
            twin.step()
    np.testing.assert_allclose(rates(ours), theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("higher_is_better", [False, True])
@pytest.mark.parametrize("parameters", [{}, {"factor": 0.5, "patience": 2, "threshold": 0.01, "min_lr": 0.03}])
def test_pytorch_reduces_on_the_same_plateaus(parameters, higher_is_better):
    torch = pytest.importorskip("torch")
    optimizer = torch_optimizer(torch)
    mode = "max" if higher_is_better else "min"
    twin = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, **parameters)
    ours = make_schedule(("plateau", parameters), RATE)
    rng, reductions = np.random.default_rng(0), 0
    for epoch in range(200):
        value = float(1 + np.exp(-epoch / 5) + 0.02 * rng.normal()) if epoch % 50 else np.nan
        value = 1 / value if higher_is_better else value
        reductions += ours.after_score(value, higher_is_better)
        twin.step(value)
        np.testing.assert_allclose(ours.rate, optimizer.param_groups[0]["lr"], rtol=1e-14)
    assert reductions >= 3


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_warmup_cosine():
    got = rates(("warmup_cosine", {"warmup": 0.25, "eta_min": 0.01}))
    rise = N // 4
    np.testing.assert_allclose(got[:rise], RATE * np.arange(1, rise + 1) / (rise + 1))
    assert got[rise] == RATE
    rest = np.arange(N - rise) / (N - rise)
    np.testing.assert_allclose(got[rise:], 0.01 + (RATE - 0.01) * (1 + np.cos(np.pi * rest)) / 2)


def test_warmup_of_nothing_is_the_cosine():
    np.testing.assert_array_equal(rates(("warmup_cosine", {"warmup": 0})), rates("cosine"))


def test_warmup_of_everything_only_rises():
    assert (np.diff(rates(("warmup_cosine", {"warmup": 1}))) > 0).all()


def test_coslog4():
    p = np.arange(N) / N
    np.testing.assert_allclose(rates("coslog4"), RATE * 0.5 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * p))), atol=1e-15)
    # a wave is over whenever 1 + 15 p has doubled
    schedule = make_schedule("coslog4", RATE, n_steps_per_epoch=15, max_iter=100)
    np.testing.assert_allclose(schedule.rates(np.array([0.0, 100, 300, 700, 1500])), 0, atol=1e-12)


def test_flat_cos():
    p = np.arange(N) / N
    expected = np.where(p < 0.5, RATE, RATE * 0.5 * (1 + np.cos(np.pi * (p - 0.5) / 0.5)))
    np.testing.assert_allclose(rates("flat_cos"), expected, rtol=1e-13, atol=1e-16)
    other = rates(("flat_cos", {"flat": 0.25, "eta_min": 0.01}))
    falling = (p[N // 4 :] - 0.25) / 0.75
    np.testing.assert_allclose(other[N // 4 :], 0.01 + (RATE - 0.01) * (1 + np.cos(np.pi * falling)) / 2, rtol=1e-13)
    np.testing.assert_array_equal(other[: N // 4], RATE)
    np.testing.assert_array_equal(rates(("flat_cos", {"flat": 0})), rates("cosine"))


def test_callable():
    np.testing.assert_allclose(rates(lambda p: 1 - p), RATE * (1 - np.arange(N) / N))
    np.testing.assert_array_equal(rates(lambda p: 1 if p < 0.5 else 0.1)[[0, -1]], [RATE, RATE * 0.1])


def test_long_restarts():
    """A restart is exact where logarithms would round: at the first step of each cycle the rate is the initial one."""
    schedule = make_schedule(("cosine_restarts", {"T_0": 1, "T_mult": 3}), RATE, n_steps_per_epoch=1)
    starts = np.cumsum([0, *3 ** np.arange(15)]).astype(np.float64)
    np.testing.assert_array_equal(schedule.rates(starts), RATE)
    assert (schedule.rates(starts[2:] - 1) < RATE / 2).all()


@pytest.mark.parametrize("name", PER_STEP)
def test_a_rate_does_not_depend_on_what_is_asked_with_it(name):
    whole = rates(name)
    np.testing.assert_array_equal(np.concatenate([rates(name, 50), rates(name, N - 50, first=50)]), whole)


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "warmup_cosine", "flat_cos", "coslog4"])
def test_the_last_rate_is_kept(name):
    later = rates(name, n=3, first=N + 1)
    np.testing.assert_array_equal(later, later[0])
    assert later[0] <= rates(name)[-1] + 1e-3 * RATE


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n_steps_per_epoch, max_iter", [(1, 1), (1, 2), (2, 1), (3, 5)])
def test_short_trainings_have_rates(name, n_steps_per_epoch, max_iter):
    schedule = make_schedule(name, RATE, n_steps_per_epoch=n_steps_per_epoch, max_iter=max_iter)
    got = np.asarray(schedule.rates(np.arange(2.0 * n_steps_per_epoch * max_iter)))
    assert np.isfinite(got).all() and (got >= 0).all() and (got <= 10 * RATE).all()


# --- what training tells ----------------------------------------------------------------------------------------------


def test_constant():
    schedule = make_schedule("constant", RATE)
    assert schedule.rates(np.arange(3.0)) == RATE
    assert not schedule.after_epoch(10) and not schedule.after_score(1.0)
    assert schedule.on_plateau() == (True, " Stopping.")


def test_invscaling():
    schedule = make_schedule("invscaling", RATE, power_t=0.7)
    assert schedule.after_epoch(99)
    assert schedule.rates(np.arange(3.0)) == RATE / 100**0.7
    other = make_schedule(("invscaling", {"power_t": 0.2}), RATE, power_t=0.7)
    other.after_epoch(99)
    assert other.rates(np.arange(3.0)) == RATE / 100**0.2


def test_adaptive():
    schedule = make_schedule("adaptive", 5e-6)
    assert schedule.on_plateau() == (False, " Setting learning rate to 0.000001")
    assert schedule.rates(np.arange(3.0)) == 5e-6 / 5
    schedule.on_plateau()
    assert schedule.on_plateau() == (True, " Learning rate too small. Stopping.")


def test_plateau_stops_training_only_after_a_reduction_did_not_help():
    schedule = make_schedule(("plateau", {"patience": 1, "min_lr": 0.01}), RATE)
    stopped = []
    for _ in range(3):
        schedule.after_score(1.0)
        schedule.after_score(1.0)
        schedule.after_score(1.0)
        stopped.append(schedule.on_plateau()[0])
    assert stopped == [False, False, True]  # 0.03, then 0.01, then no lower
    assert schedule.rate == 0.01


def test_scores_may_be_negative():
    schedule = make_schedule(("plateau", {"patience": 0, "threshold": 0.1}), RATE)
    assert not schedule.after_score(-10.0, higher_is_better=True)
    assert not schedule.after_score(-8.9, higher_is_better=True)
    assert schedule.after_score(-8.5, higher_is_better=True)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_state_is_all_there_is_to_know(name):
    def train(schedule, epochs):
        seen = []
        for epoch in epochs:
            seen.append(np.copy(schedule.rates(np.arange(5.0 * epoch, 5.0 * epoch + 5))))
            schedule.after_score(1.0 / min(epoch + 1, 9))
            schedule.after_epoch(100 * epoch)
            if epoch % 15 == 14:
                schedule.on_plateau()
        return np.array(seen)

    whole = train(make_schedule(name, RATE, 0.5, 5, 40), range(40))
    first, second = (make_schedule(name, RATE, 0.5, 5, 40) for _ in range(2))
    before = train(first, range(23))
    second.set_state(pickle.loads(pickle.dumps(first.get_state())))
    np.testing.assert_array_equal(np.concatenate([before, train(second, range(23, 40))]), whole)
    assert all(type(value) in (float, int, bool) for value in first.get_state().values())


# --- wrong ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["cyclic", None, 0.1, ("cosin", {})])
def test_an_unknown_schedule(choice):
    with pytest.raises(ValueError, match=r"learning_rate=.* is unknown; valid are .*'one_cycle'"):
        make_schedule(choice, RATE)


@pytest.mark.parametrize(
    "choice, words",
    [
        (("step", {"step_size": 0}), r"step_size must be in \(0, inf\), got 0"),
        (("exponential", {"gamma": 1.1}), r"gamma must be in \(0, 1\], got 1.1"),
        (("cosine", {"T_max": 3}), r"'cosine' has no parameter 'T_max'; its parameters are \['eta_min'\]"),
        (("cosine_restarts", {"T_mult": 0.5}), r"T_mult must be in \[1, inf\), got 0.5"),
        (("one_cycle", {"pct_start": 1.5}), r"pct_start must be in \[0, 1\], got 1.5"),
        (("plateau", {"factor": 1}), r"factor must be in \(0, 1\), got 1"),
        (("warmup_cosine", {"warmup": -0.1}), r"warmup must be in \[0, 1\], got -0.1"),
        (("flat_cos", {"flat": 1}), r"flat must be in \[0, 1\), got 1"),
    ],
)
def test_wrong_parameters(choice, words):
    with pytest.raises(ValueError, match=words):
        make_schedule(choice, RATE)


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda p: -p, "must return finite factors of at least 0, got -0.00595"),
        (lambda p: np.nan, "must return finite factors of at least 0, got nan for progress 0"),
        (lambda p: None, "must return"),
        (lambda p: "fast", "must return one number, got 'fast'"),
        (lambda p: np.array([p]), "must return one number, got array"),
        (lambda p: [1, 2], r"must return one number, got \[1, 2\]"),
    ],
)
def test_wrong_functions(function, words):
    with pytest.raises(ValueError, match=words):
        rates(function)


# --- shares: what multiplies dropout and weight decay -----------------------------------------------------------------


def share(choice, argument="dropout_schedule"):
    return make_share(choice, argument, STEPS_PER_EPOCH, EPOCHS)


def test_shares_are_functions_of_the_step_that_stay_within_0_and_1():
    moved_by_training = {"invscaling", "adaptive", "plateau"}
    assert set(SHARES) == set(SCHEDULES) - moved_by_training - {"one_cycle"}  # which rises to ten times its start


@pytest.mark.parametrize("name", sorted(set(SHARES) - {"constant"}))
def test_a_share_is_the_schedule_of_a_rate_of_1(name):
    steps = np.arange(2.0 * N)
    got = share(name).rates(steps)
    np.testing.assert_allclose(got * RATE, rates(name, n=2 * N), rtol=1e-12, atol=1e-16)
    assert got.min() >= 0 and got.max() <= 1


def test_no_share_is_no_schedule():
    assert share("constant") is None and share(("constant", {})) is None


def test_a_function_as_share():
    np.testing.assert_allclose(share(lambda p: 1 - p).rates(np.arange(N)), 1 - np.arange(N) / N)


@pytest.mark.parametrize(
    "choice, words",
    [
        ("plateau", r"weight_decay_schedule='plateau' is unknown; valid are .*'flat_cos'"),
        ("one_cycle", "weight_decay_schedule='one_cycle' is unknown"),
        (0.5, "weight_decay_schedule=0.5 is unknown"),
        (("cosine", {"eta_min": 2}), r"eta_min must be in \[0, 1\], got 2"),
        (lambda p: 1 + p, r"weight_decay_schedule=.* must return factors in \[0, 1\], got 1.00595"),
        (lambda p: np.nan, r"must return factors in \[0, 1\], got nan for progress 0"),
        (lambda p: "much", "weight_decay_schedule=.* must return one number, got 'much'"),
    ],
)
def test_wrong_shares(choice, words):
    with pytest.raises(ValueError, match=words):
        share(choice, "weight_decay_schedule").rates(np.arange(N))
