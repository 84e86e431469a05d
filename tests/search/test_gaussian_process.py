"""The Gaussian process against the textbook's formulas, written out densely."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from search.samplers.features.recipe_features import Group
from search.samplers.surrogate.gaussian_process import (
    GLANCE,
    Data,
    Hyper,
    Outlook,
    Surrogate,
    distances,
    kernel,
    matern,
    representative,
)
from search.samplers.surrogate.hyperparameters import MAX_FIT_POINTS, Fits, Objective, fit

GROUPS = (Group(name="method", start=0, end=2), Group(name="share", start=2, end=5))


def data(count: int = 30, seed: int = 0, noise: float = 0.01) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.random((count, 5))
    y = 40.0 + 3.0 * np.sin(4.0 * x[:, 2]) + x[:, 0]
    y = y + np.sqrt(noise) * rng.normal(size=count)
    return Data(x=x, y=y, noise=np.full(count, noise) * rng.uniform(0.5, 2.0, count))


def hyper(method: float = 1.5, share: float = 0.4, noise: float = 0.1) -> Hyper:
    return Hyper(np.log([method, share, 1.2, noise]))


def dense_kernel(one: np.ndarray, other: np.ndarray, at: Hyper) -> np.ndarray:
    """Equation 4.17 of Rasmussen and Williams, entry by entry."""
    result = np.empty((len(one), len(other)))
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            r = np.sqrt(sum(
                np.sum((a[g.start:g.end] - b[g.start:g.end]) ** 2) / length**2
                for g, length in zip(GROUPS, at.lengths, strict=True)
            ))  # fmt: skip
            root = np.sqrt(5.0) * r
            result[i, j] = at.signal * (1.0 + root + 5.0 * r**2 / 3.0) * np.exp(-root)
    return result


def dense_posterior(known: Data, at: Hyper, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 2.25 and 2.26 with explicit inverses; the mean by generalised least squares."""
    centre, spread = known.y.mean(), known.y.std()
    y = (known.y - centre) / spread
    total = dense_kernel(known.x, known.x, at) + np.diag(known.noise / spread**2 + at.noise)
    inverse = np.linalg.inv(total)
    ones = np.ones(len(y))
    constant = ones @ inverse @ y / (ones @ inverse @ ones)
    across = dense_kernel(x, known.x, at)
    mean = constant + across @ inverse @ (y - constant)
    variance = at.signal - np.einsum("ij,jk,ik->i", across, inverse, across)
    return centre + spread * mean, spread * np.sqrt(variance)


def test_the_kernel_is_the_textbooks() -> None:
    known = data(12)
    found = kernel(known.x, known.x[:5], hyper(), GROUPS)
    np.testing.assert_allclose(found, dense_kernel(known.x, known.x[:5], hyper()), atol=1e-7)
    assert matern(np.array([0.0]))[0] == 1.0
    by_group = distances(known.x, known.x, GROUPS).sum(axis=0)
    gap = known.x[:, None] - known.x[None]
    np.testing.assert_allclose(by_group, (gap**2).sum(axis=2), atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_posterior_is_the_textbooks(count: int) -> None:
    known = data(count)
    if count == 1:
        mean, deviation = Surrogate(known, hyper=hyper(), groups=GROUPS).predict(known.x)
        assert mean == pytest.approx(known.y)
        assert deviation[0] < 1.2
        return
    x = np.random.default_rng(5).random((7, 5))
    mean, deviation = Surrogate(known, hyper=hyper(), groups=GROUPS).predict(x)
    right_mean, right_deviation = dense_posterior(known, hyper(), x)
    np.testing.assert_allclose(mean, right_mean, rtol=1e-6)
    np.testing.assert_allclose(deviation, right_deviation, rtol=1e-5)


def test_noisy_points_pull_less() -> None:
    x = np.array([[0.0] * 5, [0.0] * 5, [2.0] * 5, [4.0] * 5])
    y = np.array([1.0, 0.0, 0.5, 0.4])
    sure_first = Data(x=x, y=y, noise=np.array([0.001, 0.1, 0.01, 0.01]))
    sure_second = Data(x=x, y=y, noise=np.array([0.1, 0.001, 0.01, 0.01]))
    (first, *_), _ = Surrogate(sure_first, hyper=hyper(), groups=GROUPS).predict(x)
    (second, *_), _ = Surrogate(sure_second, hyper=hyper(), groups=GROUPS).predict(x)
    assert first > 0.85
    assert second < 0.15


def test_a_point_without_noise_is_met() -> None:
    known = data(20, noise=0.0)
    exact = Surrogate(known, hyper=hyper(noise=1e-5), groups=GROUPS)
    mean, deviation = exact.predict(known.x)
    np.testing.assert_allclose(mean, known.y, atol=1e-3)
    assert deviation.max() < 1e-2


def test_many_cheap_answers_are_worth_one_dear_answer() -> None:
    """Nine answers with nine times the variance say what one says, at one place."""
    place, other = [0.3] * 5, [3.0] * 5
    one = Data(x=np.array([place, other]), y=np.array([1.0, 0.0]), noise=np.array([0.01, 0.01]))
    many = Data(
        x=np.array([place] * 9 + [other]),
        y=np.array([1.0] * 9 + [0.0]),
        noise=np.array([0.09] * 9 + [0.01]),
    )
    at = Hyper(np.log([1.5, 0.4, 1.2, 1e-4]))
    spread = np.std(one.y) / np.std(many.y)
    many = Data(x=many.x, y=many.y, noise=many.noise / spread**2)
    _, first = Surrogate(one, hyper=at, groups=GROUPS).predict(np.array([place]))
    _, second = Surrogate(many, hyper=at, groups=GROUPS).predict(np.array([place]))
    assert first / np.std(one.y) == pytest.approx(second / np.std(many.y), rel=1e-3)


def test_points_under_way_narrow_the_posterior_and_leave_its_mean() -> None:
    known, x = data(), np.random.default_rng(8).random((40, 5))
    plain = Surrogate(known, hyper=hyper(), groups=GROUPS)
    waiting = Surrogate(known, hyper=hyper(), groups=GROUPS)
    waiting.expect(x[:2], 0.01)
    waiting.expect(x[:3], 0.01)
    (mean, before), (same, after) = plain.predict(x), waiting.predict(x)
    np.testing.assert_array_equal(mean, same)
    assert (after[:3] < 0.7 * before[:3]).all()
    assert (after <= before + 1e-12).all()
    # Appended rows of the factor give what a model of all points gives, spread and noise alike.
    full = dense_kernel(np.vstack([known.x, x[:3]]), np.vstack([known.x, x[:3]]), hyper())
    noise = np.append(known.noise, [0.01] * 3) / known.y.std() ** 2 + hyper().noise
    across = dense_kernel(x, np.vstack([known.x, x[:3]]), hyper())
    inverse = np.linalg.inv(full + np.diag(noise))
    variance = hyper().signal - np.einsum("ij,jk,ik->i", across, inverse, across)
    np.testing.assert_allclose(after, known.y.std() * np.sqrt(variance), rtol=1e-5)


def test_points_no_longer_under_way_are_forgotten() -> None:
    known, x = data(), np.random.default_rng(8).random((9, 5))
    plain, waiting = (Surrogate(known, hyper=hyper(), groups=GROUPS) for _ in range(2))
    waiting.expect(x[:4], 0.01)
    waiting.expect(x[1:5], 0.01)
    plain.expect(x[1:5], 0.01)
    np.testing.assert_array_equal(plain.predict(x)[1], waiting.predict(x)[1])
    waiting.expect(x[1:5], 0.02)
    assert (waiting.predict(x)[1] > plain.predict(x)[1]).all()
    waiting.expect(x[:0], 0.01)
    fresh = Surrogate(known, hyper=hyper(), groups=GROUPS)
    np.testing.assert_array_equal(fresh.predict(x)[1], waiting.predict(x)[1])


def test_a_glance_is_a_bound_and_the_beginning_of_the_whole() -> None:
    many, x = data(GLANCE + 60), np.random.default_rng(8).random((9, 5))
    outlook = Outlook(Surrogate(many, hyper=hyper(), groups=GROUPS), x)
    few = Data(x=many.x[:GLANCE], y=many.y[:GLANCE], noise=many.noise[:GLANCE])
    total = dense_kernel(few.x, few.x, hyper())
    total += np.diag(few.noise / many.y.std() ** 2 + hyper().noise)
    across = dense_kernel(x, few.x, hyper())
    variance = hyper().signal - np.einsum("ij,ij->i", across @ np.linalg.inv(total), across)
    np.testing.assert_allclose(outlook.at_most(), many.y.std() * np.sqrt(variance), rtol=1e-5)
    exact = outlook.deviation(np.array([3, 0, 8]))
    assert (exact < outlook.at_most()[[3, 0, 8]]).all()
    np.testing.assert_allclose(exact, outlook.deviation(np.arange(9))[[3, 0, 8]], rtol=1e-12)


def test_who_asks_for_the_same_process_gets_it() -> None:
    fits, known = Fits(GROUPS), data()
    at = hyper()
    first = fits.model(known, at)
    again = Data(x=known.x.copy(), y=known.y.copy(), noise=known.noise.copy())
    assert fits.model(again, at) is first
    for other in (
        Data(x=known.x + 1.0, y=known.y, noise=known.noise),
        Data(x=known.x, y=known.y + 1.0, noise=known.noise),
        Data(x=known.x, y=known.y, noise=known.noise + 1.0),
    ):
        assert fits.model(other, at) is not first
        assert fits.model(other, at).data is other
    assert fits.model(known, hyper()) is not first


def test_the_gradient_is_right() -> None:
    objective = Objective(data(), GROUPS)
    for at in (hyper(), Hyper.median(GROUPS), hyper(0.2, 3.0, 0.5)):
        numeric = approx_fprime(at.log, lambda log: objective(log)[0], 1e-6)
        np.testing.assert_allclose(objective(at.log)[1], numeric, rtol=1e-3, atol=1e-3)


def test_a_fit_raises_the_likelihood_and_finds_what_matters() -> None:
    known = data(80)
    objective = Objective(known, GROUPS)
    fitted = fit(known, GROUPS)
    assert objective(fitted.log)[0] < objective(Hyper.median(GROUPS).log)[0] - 1.0
    # The sine of one column of the second group makes nearly all of the differences.
    assert fitted.lengths[0] > 2.0 * fitted.lengths[1]


def test_a_fit_depends_on_the_data_alone() -> None:
    one, other = fit(data(50), GROUPS), fit(data(50), GROUPS)
    np.testing.assert_array_equal(one.log, other.log)


def test_a_fit_does_not_change_with_the_unit_of_the_scores() -> None:
    known = data(50)
    percent = Data(x=known.x, y=100.0 * known.y - 7.0, noise=1e4 * known.noise)
    np.testing.assert_allclose(fit(known, GROUPS).log, fit(percent, GROUPS).log, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, MAX_FIT_POINTS + 40])
def test_any_number_of_points_can_be_fitted(count: int) -> None:
    known = data(count)
    fitted = fit(known, GROUPS)
    assert np.isfinite(fitted.log).all()
    mean, deviation = Surrogate(known, hyper=fitted, groups=GROUPS).predict(known.x)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()


def test_scores_that_are_all_equal_and_points_that_repeat_are_no_trouble() -> None:
    known = Data(x=np.ones((6, 5)), y=np.full(6, 0.25), noise=np.zeros(6))
    fitted = fit(known, GROUPS)
    mean, deviation = Surrogate(known, hyper=fitted, groups=GROUPS).predict(known.x)
    np.testing.assert_allclose(mean, 0.25)
    assert np.isfinite(deviation).all()


def test_means_at_the_points_need_no_predicting() -> None:
    known = data(60)
    model = Surrogate(known, hyper=hyper(), groups=GROUPS)
    np.testing.assert_allclose(model.means, model.predict(known.x)[0], rtol=1e-9)


def test_of_too_many_points_those_that_say_most_are_kept() -> None:
    values = np.random.default_rng(1).normal(size=(1000, 2))
    assert representative(values, 1000).tolist() == list(range(1000))
    kept = representative(values[:, :1], 100)
    assert len(set(kept.tolist())) == 100
    assert (np.diff(kept) > 0).all()
    best = np.argsort(-values[:, 0])[:50]
    assert set(best.tolist()) <= set(kept.tolist())
    assert np.diff(kept).max() < 60  # the others are spread over the history
    both = set(representative(values, 100).tolist())
    for objective in (0, 1):
        assert set(np.argsort(-values[:, objective])[:20].tolist()) <= both
