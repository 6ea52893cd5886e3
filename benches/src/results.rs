//! All that one run of the comparison has found out.

use crate::candidate::Kind;
use crate::count::Count;
use crate::figures::Figures;
use crate::placement::Placement;

/// The results, and what they do not hold.
pub(crate) struct Results {
    /// What they were measured with, a line each.
    pub(crate) facts: Vec<String>,
    /// Of each pool.
    pub(crate) workers: usize,
    pub(crate) placements: Vec<(Placement, Vec<Figures>)>,
    pub(crate) counts: Vec<Count>,
    /// What was not measured, and why, a line each.
    pub(crate) absences: Vec<String>,
}

impl Results {
    /// The candidates of a workload, in the order in which they are listed there.
    pub(crate) fn candidates(&self, placement: Placement, workload: &str) -> Vec<&Figures> {
        let all = self.placements.iter().filter(|(at, _)| *at == placement).flat_map(|(_, figures)| figures);
        all.filter(|figures| figures.workload == workload).collect()
    }

    pub(crate) fn candidate(&self, placement: Placement, workload: &str, name: &str) -> Option<&Figures> {
        self.candidates(placement, workload).into_iter().find(|figures| figures.candidate == name)
    }

    /// The way of workcrew that the workload is about, which the others are compared with.
    pub(crate) fn ours(&self, placement: Placement, workload: &str) -> Option<&Figures> {
        self.candidates(placement, workload).first().copied()
    }

    /// The one with the lowest median of a kind.
    pub(crate) fn best(&self, placement: Placement, workload: &str, kind: Kind) -> Option<&Figures> {
        self.best_of(placement, workload, |figures| figures.kind == kind)
    }

    /// The one with the lowest median of those that `takes_part` says.
    pub(crate) fn best_of(
        &self,
        placement: Placement,
        workload: &str,
        takes_part: impl Fn(&Figures) -> bool,
    ) -> Option<&Figures> {
        let all = self.candidates(placement, workload).into_iter().filter(|figures| takes_part(figures));
        all.min_by(|one, other| one.median.total_cmp(&other.median))
    }

    pub(crate) fn count(&self, name: &str) -> Option<f64> {
        self.counts.iter().find(|count| count.name == name).map(|count| count.value)
    }
}
