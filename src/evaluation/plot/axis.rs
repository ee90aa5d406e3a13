//! The axis of a detection error trade-off. The position of a rate is its normal deviate, so that
//! normally distributed scores give straight lines. Source: Martin et al., "The DET curve in
//! assessment of detection task performance", Eurospeech 1997.

/// The least and the largest rate on the axis. Rates outside are drawn at its ends.
const RATES: [f64; 2] = [0.0005, 0.6];

/// Rates with a grid line, and their labels in per cent.
pub(super) const TICKS: [(f64, &str); 8] = [
    (0.001, "0.1"),
    (0.005, "0.5"),
    (0.01, "1"),
    (0.02, "2"),
    (0.05, "5"),
    (0.1, "10"),
    (0.2, "20"),
    (0.4, "40"),
];

/// Returns the position of a rate on the axis, in 0..=1.
pub(super) fn position(rate: f64) -> f64 {
    let [low, high] = RATES.map(normal_deviate);
    (normal_deviate(rate.clamp(RATES[0], RATES[1])) - low) / (high - low)
}

/// Returns true if a rate is too small for the axis.
pub(super) fn is_below(rate: f64) -> bool {
    rate <= RATES[0]
}

/// Returns the quantile of the normal distribution at `probability`, which is inside (0, 1). This
/// is Hastings' approximation (Abramowitz and Stegun 26.2.23). Its error is at most 4.5e-4, a tenth
/// of a pixel.
fn normal_deviate(probability: f64) -> f64 {
    if probability > 0.5 {
        return -normal_deviate(1.0 - probability);
    }
    let t = (-2.0 * probability.ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    numerator / denominator - t
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: `scipy.stats.norm.ppf`.
    #[test]
    fn normal_deviates_are_the_tabulated_ones() {
        for (probability, expected) in [
            (0.0005, -3.2905267),
            (0.01, -2.3263479),
            (0.05, -1.6448536),
            (0.4, -0.2533471),
            (0.5, 0.0),
            (0.6, 0.2533471),
            (0.975, 1.9599640),
        ] {
            let actual = normal_deviate(probability);
            assert!((actual - expected).abs() < 4.5e-4, "{probability}: {actual}, not {expected}");
        }
    }

    #[test]
    fn ticks_rise_along_the_axis_and_rates_beyond_are_at_its_ends() {
        let positions = TICKS.map(|(rate, _)| position(rate));
        assert!(positions.is_sorted() && positions[0] > 0.0 && positions[7] < 1.0, "{positions:?}");
        assert_eq!((position(0.0), position(1.0)), (0.0, 1.0));
        assert!(is_below(0.0) && !is_below(0.001));
    }
}
