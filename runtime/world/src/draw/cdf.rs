//! Which share of clients waits no longer than so many milliseconds.

use super::{Canvas, FAINT_INK, INK};
use crate::spread::Spread;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 870.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 460.0;
/// What is longer is not drawn.
const LONGEST_MS: f64 = 400.0;

const COLOURS: [&str; 7] = ["#08519c", "#e2711d", "#2a8c4a", "#9e1b1b", "#7b4fa3", "#6b7785", "#b08900"];

/// One line of the picture.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// What stands in the legend.
    pub name: String,
    /// The round trips of those who are served.
    pub spread: &'a Spread,
    /// Those who are not: they count, and wait for ever.
    pub refused: u64,
    /// For what is imagined, in place of what is.
    pub dashed: bool,
}

/// Draws the curves, with lines at 100 ms and at 95 of 100.
pub fn cdf(title: &str, curves: &[Curve<'_>]) -> String {
    let mut canvas = Canvas::new(WIDTH, HEIGHT, title);
    canvas.words((24.0, 32.0), (20.0, "start", INK), title);
    grid(&mut canvas);
    for (at, curve) in curves.iter().enumerate() {
        line(&mut canvas, curve, COLOURS[at % COLOURS.len()]);
    }
    legend(&mut canvas, curves);
    canvas.done()
}

fn x(ms: f64) -> f64 {
    LEFT + ms / LONGEST_MS * (RIGHT - LEFT)
}

fn y(share: f64) -> f64 {
    BOTTOM - share * (BOTTOM - TOP)
}

fn grid(canvas: &mut Canvas) {
    for tenth in (0..=10).step_by(2) {
        let at = y(f64::from(tenth) / 10.0);
        canvas.add(format_args!(
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#e3e7eb\" stroke-width=\"1\" fill=\"none\"/>"
        ));
        canvas.words((LEFT - 8.0, at + 4.0), (12.0, "end", FAINT_INK), &format!("{} %", tenth * 10));
    }
    for ms in (0..=LONGEST_MS as u32).step_by(50) {
        let at = x(f64::from(ms));
        canvas.words((at, BOTTOM + 18.0), (12.0, "middle", FAINT_INK), &ms.to_string());
    }
    for path in [format!("M{:.1} {TOP}V{BOTTOM}", x(100.0)), format!("M{LEFT} {:.1}H{RIGHT}", y(0.95))] {
        canvas.add(format_args!(
            "<path d=\"{path}\" stroke=\"{FAINT_INK}\" stroke-width=\"1\" stroke-dasharray=\"2 3\" fill=\"none\"/>"
        ));
    }
    canvas.words((x(100.0), TOP - 6.0), (12.0, "middle", FAINT_INK), "100 ms");
    canvas.words((RIGHT, y(0.95) - 5.0), (12.0, "end", FAINT_INK), "95 %");
    canvas
        .add(format_args!("<path d=\"M{LEFT} {BOTTOM}H{RIGHT}\" stroke=\"{INK}\" stroke-width=\"1\" fill=\"none\"/>"));
    let words = "modelled round trip from user to region in ms, the access line included";
    canvas.words(((LEFT + RIGHT) / 2.0, BOTTOM + 42.0), (13.0, "middle", INK), words);
}

fn line(canvas: &mut Canvas, curve: &Curve<'_>, colour: &str) {
    let served = curve.spread.count() as f64;
    let part = served / (served + curve.refused as f64).max(1.0);
    let mut path = String::new();
    for step in 0..=(LONGEST_MS as u32 / 2) {
        let ms = f64::from(step) * 2.0;
        let letter = if step == 0 { 'M' } else { 'L' };
        path.push_str(&format!("{letter}{:.1} {:.1}", x(ms), y(curve.spread.below(ms) * part)));
    }
    let dashes = if curve.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    canvas.add(format_args!(
        "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2.2\" fill=\"none\" stroke-linejoin=\"round\"{dashes}/>"
    ));
}

fn legend(canvas: &mut Canvas, curves: &[Curve<'_>]) {
    let top = BOTTOM - 20.0 - curves.len() as f64 * 20.0;
    let longest = curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0) as f64;
    let left = RIGHT - longest * 6.8 - 60.0;
    canvas.add(format_args!(
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#ffffff\" fill-opacity=\"0.9\"/>",
        left - 8.0,
        top - 16.0,
        RIGHT - left + 8.0,
        curves.len() as f64 * 20.0 + 12.0
    ));
    for (at, curve) in curves.iter().enumerate() {
        let (y, colour) = (top + at as f64 * 20.0, COLOURS[at % COLOURS.len()]);
        let dashes = if curve.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        canvas.add(format_args!(
            "<path d=\"M{left:.1} {:.1}h34\" stroke=\"{colour}\" stroke-width=\"2.2\" fill=\"none\"{dashes}/>",
            y - 4.0
        ));
        canvas.words((left + 42.0, y), (12.0, "start", INK), &curve.name);
    }
}
