//! Which places serve the most people soon enough: one more place, or the
//! fewest.
//!
//! Each country is served by the best of the chosen places for it, because
//! policies choose by country. That is a bound: policies that choose for other
//! reasons too do no better, and have to be asked.

/// For each country and place, the share of all users who live there and are served soon enough from there.
#[derive(Clone, Debug)]
pub struct Reach {
    by_country: Vec<Vec<f64>>,
    places: usize,
    /// By place: for each country the best of this place and all after it.
    best_after: Vec<Vec<f64>>,
}

impl Reach {
    /// Takes a row a country with a figure a place.
    ///
    /// # Panics
    /// If the rows differ in length: a mistake of the caller's.
    pub fn new(by_country: Vec<Vec<f64>>) -> Self {
        let places = by_country.first().map_or(0, Vec::len);
        assert!(by_country.iter().all(|row| row.len() == places), "every row has a figure for every place");
        let mut best_after = vec![vec![0.0; by_country.len()]; places + 1];
        for place in (0..places).rev() {
            for country in 0..by_country.len() {
                best_after[place][country] = by_country[country][place].max(best_after[place + 1][country]);
            }
        }
        Self { by_country, places, best_after }
    }

    /// The share of all users whom these places serve soon enough.
    pub fn share(&self, chosen: &[usize]) -> f64 {
        let best = |row: &Vec<f64>| chosen.iter().map(|at| row[*at]).fold(0.0, f64::max);
        self.by_country.iter().map(best).sum()
    }

    /// Which of these places is best for each country, in the order of the rows.
    pub fn best(&self, chosen: &[usize]) -> Vec<Option<usize>> {
        let best = |row: &Vec<f64>| chosen.iter().copied().max_by(|one, other| row[*one].total_cmp(&row[*other]));
        self.by_country.iter().map(best).collect()
    }

    /// What each place not yet chosen would add, the most first.
    pub fn next(&self, chosen: &[usize]) -> Vec<(usize, f64)> {
        let before = self.share(chosen);
        let with = |place: usize| self.share(&[chosen, &[place]].concat()) - before;
        let mut gains: Vec<_> = (0..self.places).filter(|at| !chosen.contains(at)).map(|at| (at, with(at))).collect();
        gains.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        gains
    }

    /// Every set of `size` places, all of `fixed` among them, that serves at least `need` of all users, the best
    /// first; at most `most` of them. Exact: what is left out cannot reach `need`, or is no better than those given.
    pub fn sets(&self, fixed: &[usize], size: usize, need: f64, most: usize) -> Vec<(Vec<usize>, f64)> {
        let mut search = Search { reach: self, fixed, size, need, most, found: Vec::new() };
        let start: Vec<f64> =
            self.by_country.iter().map(|row| fixed.iter().map(|at| row[*at]).fold(0.0, f64::max)).collect();
        if size >= fixed.len() {
            search.grow(0, &mut fixed.to_vec(), &start);
        }
        search.found
    }
}

struct Search<'a> {
    reach: &'a Reach,
    fixed: &'a [usize],
    size: usize,
    need: f64,
    most: usize,
    /// The best first.
    found: Vec<(Vec<usize>, f64)>,
}

impl Search<'_> {
    /// The least share that is still of interest.
    fn bar(&self) -> f64 {
        let last = self.found.last().filter(|_| self.found.len() >= self.most);
        last.map_or(self.need, |(_, share)| share.max(self.need))
    }

    /// Tries every place from `from` on beside those chosen, which serve `best` by country.
    fn grow(&mut self, from: usize, chosen: &mut Vec<usize>, best: &[f64]) {
        if chosen.len() == self.size {
            let share: f64 = best.iter().sum();
            if share >= self.bar() {
                let mut set = chosen.clone();
                set.sort_unstable();
                let at = self.found.partition_point(|(_, other)| *other >= share);
                self.found.insert(at, (set, share));
                self.found.truncate(self.most);
            }
            return;
        }
        for place in from..self.reach.places {
            // With all that is left to choose from, and not only as many as may be: never too low.
            let after = &self.reach.best_after[place];
            let bound: f64 = best.iter().zip(after).map(|(now, later)| now.max(*later)).sum();
            if bound < self.bar() {
                return;
            }
            if self.fixed.contains(&place) {
                continue;
            }
            let with: Vec<f64> =
                best.iter().zip(&self.reach.by_country).map(|(now, row)| now.max(row[place])).collect();
            chosen.push(place);
            self.grow(place + 1, chosen, &with);
            chosen.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn any(countries: usize, places: usize, seed: u64) -> Reach {
        let mut random = Random::new(seed);
        let row = |_| (0..places).map(|_| random.unit() / countries as f64).collect();
        Reach::new((0..countries).map(row).collect())
    }

    /// Every set of so many of so many places.
    fn all(places: usize, size: usize) -> Vec<Vec<usize>> {
        let sets = (0..1_u32 << places).filter(|bits| bits.count_ones() as usize == size);
        sets.map(|bits| (0..places).filter(|at| bits >> at & 1 == 1).collect()).collect()
    }

    #[test]
    fn no_set_that_is_good_enough_is_overlooked() {
        for seed in 0..20 {
            let reach = any(7, 9, seed);
            for size in 1..=4 {
                let (need, fixed) = (0.6, [2]);
                let mut slowly: Vec<_> = all(9, size)
                    .into_iter()
                    .filter(|set| set.contains(&2))
                    .map(|set| (reach.share(&set), set))
                    .filter(|(share, _)| *share >= need)
                    .collect();
                slowly.sort_by(|one, other| other.0.total_cmp(&one.0));
                let found = reach.sets(&fixed, size, need, 5);
                let wanted: Vec<_> = slowly.iter().take(5).map(|(_, set)| set.clone()).collect();
                let given: Vec<_> = found.iter().map(|(set, _)| set.clone()).collect();
                assert_eq!(given, wanted, "seed {seed}, {size} places");
            }
        }
    }

    #[test]
    fn the_next_place_is_the_one_that_adds_most() {
        let reach = Reach::new(vec![vec![0.5, 0.1, 0.0], vec![0.0, 0.1, 0.4], vec![0.0, 0.05, 0.0]]);
        let order: Vec<usize> = reach.next(&[0]).into_iter().map(|(at, _)| at).collect();
        assert_eq!(order, [2, 1]);
        assert!((reach.next(&[0])[0].1 - 0.4).abs() < 1e-12);
    }
}
