//! A measured rate, and exact binomial bounds of the true rate (Clopper and Pearson, Biometrika 26,
//! 1934).

use std::cmp::Ordering;

/// One-sided confidence of each bound alone, as test laboratories count it: 0 errors in 150
/// presentations give "at most 1.98 %". Both bounds together hold with 90 %.
pub const CONFIDENCE: f64 = 0.95;

/// Bisections of an interval of length 1 until a double cannot tell its ends apart.
const HALVINGS: usize = 60;

/// Maximum number of terms of the continued fraction. It needs about the square root of the number
/// of presentations, and a file has at most a million.
const TERMS_MAX: usize = 10_000;

/// The share of errors in a sample of at least one presentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    errors: usize,
    presentations: usize,
}

impl Rate {
    /// Returns `None` if there are no presentations or more errors than presentations.
    pub(crate) fn new(errors: usize, presentations: usize) -> Option<Self> {
        (presentations > 0 && errors <= presentations).then_some(Self { errors, presentations })
    }

    /// Returns the number of presentations that were judged wrongly.
    pub fn errors(self) -> usize {
        self.errors
    }

    /// Returns the number of presentations that were judged.
    pub fn presentations(self) -> usize {
        self.presentations
    }

    /// Returns the measured rate, errors ÷ presentations, in 0..=1.
    pub fn value(self) -> f64 {
        self.errors as f64 / self.presentations as f64
    }

    /// Orders the higher rate first. If two rates are equal, the one with fewer presentations comes
    /// first, because its bounds are wider.
    pub(crate) fn worse_first(self, other: Self) -> Ordering {
        let by_size = self.presentations.cmp(&other.presentations);
        other.value().total_cmp(&self.value()).then(by_size)
    }

    /// Returns the lower bound (Clopper-Pearson), in 0..=1. The true rate is at least this, with
    /// [`CONFIDENCE`].
    pub fn lower_bound(self) -> f64 {
        if self.errors == 0 {
            return 0.0;
        }
        let right = self.presentations - self.errors;
        beta_quantile(1.0 - CONFIDENCE, self.errors as f64, right as f64 + 1.0)
    }

    /// Returns the upper bound (Clopper-Pearson), in 0..=1. The true rate is at most this, with
    /// [`CONFIDENCE`].
    pub fn upper_bound(self) -> f64 {
        let right = self.presentations - self.errors;
        if right == 0 {
            return 1.0;
        }
        beta_quantile(CONFIDENCE, self.errors as f64 + 1.0, right as f64)
    }
}

/// Returns the number of presentations without any error that supports the claim "the rate is at
/// most `limit`". `limit` is inside (0, 1). The result is 299 for 1 % and 59 for 5 %.
pub(crate) fn error_free_needed(limit: f64) -> usize {
    ((1.0 - CONFIDENCE).ln() / (-limit).ln_1p()).ceil() as usize
}

/// Formats `rate`, in 0..=1, as a percentage: two decimals below 10 %, one decimal from 10 % on.
pub fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent < 9.995 { format!("{percent:.2} %") } else { format!("{percent:.1} %") }
}

/// Returns the quantile of the beta distribution with parameters `a` and `b` at `probability`.
fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if incomplete_beta(middle, a, b) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Returns the regularised incomplete beta function: the probability of a value below `x` in the
/// beta distribution. The continued fraction converges fast below the mean, so above the mean the
/// function uses the symmetry of the distribution.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let log_scale = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    if x < (a + 1.0) / (a + b + 2.0) {
        log_scale.exp() * beta_fraction(x, a, b) / a
    } else {
        1.0 - log_scale.exp() * beta_fraction(1.0 - x, b, a) / b
    }
}

/// Returns the continued fraction of the incomplete beta function (DLMF 8.17.22), computed by
/// Lentz's method. This method replaces a vanishing denominator by a tiny one.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let inverse = |value: f64| 1.0 / if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut numerator = 1.0;
    let mut denominator = inverse(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = denominator;
    for term in 1..=TERMS_MAX {
        let m = term as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for coefficient in [even, odd] {
            denominator = inverse(1.0 + coefficient * denominator);
            numerator = 1.0 + coefficient * inverse(numerator);
            fraction *= numerator * denominator;
        }
        if (fraction / before - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}

/// Returns the logarithm of the gamma function of `x` ≥ 1. From 10 on, it is Stirling's series
/// (DLMF 5.11.1), whose first omitted term is below 1e-13. Below 10, `gamma(x) = gamma(x + 1) / x`.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let square = x * x;
    let series = (1.0 / 12.0
        - (1.0 / 360.0
            - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square) / square)
            / square)
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - f64::ln(product)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(errors: usize, presentations: usize) -> Rate {
        Rate::new(errors, presentations).unwrap()
    }

    fn assert_near(actual: f64, expected: f64, what: &str) {
        assert!((actual - expected).abs() < 1e-9, "{what}: {actual} is not {expected}");
    }

    /// Expected values: `scipy.special.betainc` of SciPy 1.
    #[test]
    fn the_incomplete_beta_function_is_the_published_one() {
        for (a, b, x, expected) in [
            (1.0, 1.0, 0.3, 0.3),
            (2.0, 3.0, 0.4, 0.5248),
            (10.0, 2.0, 0.9, 0.6973568802),
            (1.0, 150.0, 0.02, 0.9517039787565122),
            (200.0, 800.0, 0.21, 0.7871542546146505),
            (5e5, 5e5, 0.5005, 0.8413447460685569),
        ] {
            let actual = incomplete_beta(x, a, b);
            assert!((actual - expected).abs() < 1e-8, "{a} {b} {x}: {actual} is not {expected}");
        }
    }

    /// Expected values: `scipy.stats.beta.ppf(0.05, k, n - k + 1)` and `ppf(0.95, k + 1, n - k)`.
    #[test]
    fn bounds_are_those_of_clopper_and_pearson() {
        for (errors, presentations, lower, upper) in [
            (0, 150, 0.0, 0.01977343816450844),
            (0, 900, 0.0, 0.0033230577960773364),
            (1, 1, 0.05, 1.0),
            (1, 10, 0.005116196891823701, 0.39416330243650466),
            (5, 100, 0.019905563662171832, 0.1022533776432745),
            (3, 150, 0.005472929955259451, 0.050877067978523934),
            (10, 10, 0.7411344491069477, 1.0),
            (37, 1000, 0.02771206682848596, 0.04838992666597339),
            (999_999, 1_000_000, 0.9999952561443618, 0.9999999487067069),
            (500_000, 1_000_000, 0.4991770739494771, 0.5008229260505229),
        ] {
            let rate = rate(errors, presentations);
            assert_near(rate.lower_bound(), lower, &format!("lower of {rate:?}"));
            assert_near(rate.upper_bound(), upper, &format!("upper of {rate:?}"));
        }
    }

    #[test]
    fn without_presentations_there_is_no_rate() {
        assert_eq!(Rate::new(0, 0), None);
        assert_eq!(Rate::new(2, 1), None);
    }

    #[test]
    fn one_per_cent_takes_299_presentations_without_error_and_five_take_59() {
        assert_eq!(error_free_needed(0.01), 299);
        assert_eq!(error_free_needed(0.05), 59);
        for limit in [0.001, 0.01, 0.05, 0.15, 0.5] {
            let needed = error_free_needed(limit);
            assert!(rate(0, needed).upper_bound() <= limit, "{limit}");
            assert!(rate(0, needed - 1).upper_bound() > limit, "{limit}");
        }
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_rate_and_rise_with_the_errors(
            presentations in 1..20_000_usize, part in 0.0..1.0_f64,
        ) {
            let errors = (part * presentations as f64) as usize;
            let (less, more) = (rate(errors, presentations), rate(errors + 1, presentations));
            prop_assert!(less.lower_bound() <= less.value() && less.value() <= less.upper_bound());
            prop_assert!(less.lower_bound() < more.lower_bound());
            prop_assert!(less.upper_bound() < more.upper_bound());
        }
    }
}
