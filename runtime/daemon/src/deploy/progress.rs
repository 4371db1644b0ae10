//! How far each region has come: spinners on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::RegionId;

/// One line a region. Without a terminal, a line is printed when a region's step changes.
pub struct Progress {
    began: Instant,
    bars: Option<(MultiProgress, BTreeMap<RegionId, ProgressBar>)>,
    last: BTreeMap<RegionId, String>,
}

impl Progress {
    /// Begins, with every region at "starting".
    pub fn new<'a>(regions: impl Iterator<Item = &'a RegionId>) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let style = ProgressStyle::with_template("{spinner} {prefix:14} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let one = |id: &RegionId| {
                let bar = all.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(id.to_string()));
                bar.set_message("starting");
                bar.enable_steady_tick(Duration::from_millis(100));
                (id.clone(), bar)
            };
            let bars = regions.map(one).collect();
            (all, bars)
        });
        Self { began: Instant::now(), bars, last: BTreeMap::new() }
    }

    /// What a region waits for.
    pub fn step(&mut self, region: &RegionId, what: &str) {
        if self.last.get(region).is_some_and(|last| last == what) {
            return;
        }
        self.last.insert(region.clone(), what.to_owned());
        match self.bars.as_ref().and_then(|(_, bars)| bars.get(region)) {
            Some(bar) => bar.set_message(what.to_owned()),
            None => eprintln!("{:6.1} s  {region:14} {what}", self.began.elapsed().as_secs_f64()),
        }
    }

    /// A region serves and sees the others.
    pub fn done(&mut self, region: &RegionId) {
        self.step(region, "ready");
    }

    /// Takes the spinners off the screen.
    pub fn finish(&mut self) {
        if let Some((_, bars)) = self.bars.take() {
            bars.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}
