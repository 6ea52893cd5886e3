//! The results of one run of the comparison.

use crate::candidate::Kind;
use crate::count::Count;
use crate::figures::Figures;
use crate::placement::Placement;

/// The figures of all workloads, and the reasons for those that are missing.
pub(crate) struct Results {
    /// The machine, the date and the versions, one line each.
    pub(crate) facts: Vec<String>,
    /// The number of workers of each pool.
    pub(crate) workers: usize,
    pub(crate) placements: Vec<(Placement, Vec<Figures>)>,
    pub(crate) counts: Vec<Count>,
    /// What was not measured, and why, one line each.
    pub(crate) absences: Vec<String>,
}

impl Results {
    /// Returns the candidates of a workload, in its order.
    pub(crate) fn candidates(&self, placement: Placement, workload: &str) -> Vec<&Figures> {
        let all = self.placements.iter().filter(|(at, _)| *at == placement).flat_map(|(_, figures)| figures);
        all.filter(|figures| figures.workload == workload).collect()
    }

    pub(crate) fn candidate(&self, placement: Placement, workload: &str, name: &str) -> Option<&Figures> {
        self.candidates(placement, workload).into_iter().find(|figures| figures.candidate == name)
    }

    /// Returns the first candidate of a workload, which is workcrew. The others are compared with
    /// it.
    pub(crate) fn ours(&self, placement: Placement, workload: &str) -> Option<&Figures> {
        self.candidates(placement, workload).first().copied()
    }

    /// Returns the candidate of a kind with the lowest median.
    pub(crate) fn best(&self, placement: Placement, workload: &str, kind: Kind) -> Option<&Figures> {
        self.best_of(placement, workload, |figures| figures.kind == kind)
    }

    /// Returns the candidate with the lowest median among those for which `takes_part` is true.
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
