//! Values of many rounds made into one.

/// The value below which `share` of the values lie. Not a number if there are no values.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median over the rounds of one candidate's value by that of another in the same round, where the noise of the
/// machine met both.
pub(crate) fn ratio(rounds: &[f64], reference: &[f64]) -> f64 {
    let ratios: Vec<f64> = rounds.iter().zip(reference).map(|(value, other)| value / other).collect();
    median(&ratios)
}
