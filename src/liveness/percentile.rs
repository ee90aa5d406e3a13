//! Percentiles of measured values.

/// Returns the value below which a `share` of the finite values lies, or `None` without values.
pub(super) fn percentile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    // The lower one of two middle values.
    let at = (sorted.len().checked_sub(1)? as f64 * share.clamp(0.0, 1.0)) as usize;
    sorted.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values = [0.3, f64::NAN, 0.1, 0.2, 0.5, 0.4];
        assert_eq!(percentile(values.into_iter(), 0.5), Some(0.3));
        assert_eq!(percentile(values.into_iter(), 0.8), Some(0.4));
        assert_eq!(percentile(values.into_iter(), 1.0), Some(0.5));
        assert_eq!(percentile([].into_iter(), 0.5), None);
    }
}
