//! Statistics over the values of many rounds.

/// Returns the value below which `share` of the values lie. Not a number if there are none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Returns the median over the rounds of one candidate's value divided by another's in that round.
pub(crate) fn ratio(rounds: &[f64], reference: &[f64]) -> f64 {
    let ratios: Vec<f64> = rounds.iter().zip(reference).map(|(value, other)| value / other).collect();
    median(&ratios)
}
