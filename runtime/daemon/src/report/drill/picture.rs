//! A drill as a picture: a band for each region, and the requests of the region's clients below.

use model::RegionId;
use world::draw::{Canvas, FAINT_INK, INK};

use super::measured::{Happened, Measured};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 970.0;
const TOP: f64 = 84.0;
/// The height of a band, and of the part of it that shows one kind of thing.
const BAND: f64 = 64.0;
const STRIPE: f64 = 14.0;
const PLOT: f64 = 130.0;

/// What a band says at a time, and how it looks.
fn colour(kind: &str, is: &str) -> &'static str {
    match (kind, is) {
        ("state", "ready") | ("role", "primary") => "#2a8c4a",
        ("state", "suspect") | ("role", "candidate" | "leader-without-lease") => "#e9b44c",
        ("state", "down") | ("dns", "no answer") => "#9e1b1b",
        ("state", _) => "#e2711d",
        ("dns", "names it") => "#08519c",
        ("silent", _) => "#4a4a4a",
        _ => "#c9d2da",
    }
}

/// The picture of one drill, as SVG text.
pub fn timeline(drill: &Measured) -> String {
    let mut regions: Vec<&RegionId> = drill.timeline.iter().map(|one| &one.region).collect();
    regions.sort();
    regions.dedup();
    let bottom = TOP + BAND * regions.len() as f64;
    let height = bottom + PLOT + 110.0;
    let title = format!("{}: {}", drill.fault, drill.fault.sentence(&drill.region));
    let mut canvas = Canvas::new(WIDTH, height, &title);
    canvas.words((24.0, 32.0), (20.0, "start", INK), &title);
    let begin = drill.timeline.iter().map(|one| one.at_ms).min().unwrap_or_default().min(-500);
    let last = drill.timeline.iter().map(|one| one.at_ms).max().unwrap_or_default();
    let end = last.max(drill.answered.iter().map(|one| one.0).max().unwrap_or_default()).max(1000) + 200;
    let x = |ms: i64| LEFT + (ms - begin) as f64 / (end - begin) as f64 * (RIGHT - LEFT);

    let (from, to) = (x(0), x(i64::try_from(drill.outage_ms).unwrap_or(end).min(end)));
    canvas.add(format_args!(
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#fbeaea\"/>",
        TOP - 10.0,
        to - from,
        bottom + PLOT + 24.0 - TOP + 10.0
    ));
    for (row, region) in regions.iter().enumerate() {
        let y = TOP + BAND * row as f64;
        canvas.words((LEFT - 12.0, y + 14.0), (14.0, "end", INK), region.as_str());
        for (line, (kind, says)) in [("state", "sees it"), ("role", "log"), ("dns", "DNS")].iter().enumerate() {
            let y = y + STRIPE * line as f64;
            if line > 0 {
                canvas.words((LEFT - 12.0, y + 13.0), (10.0, "end", FAINT_INK), says);
            }
            stripe(&mut canvas, &spans(drill, region, kind, end), (y + 2.0, &x));
        }
    }
    requests(&mut canvas, drill, (bottom + 20.0, &x));
    axis(&mut canvas, (begin, end), (bottom + PLOT + 24.0, &x));
    legend(&mut canvas, height - 22.0);
    canvas.done()
}

/// From when until when a region showed what of one kind.
fn spans<'d>(drill: &'d Measured, region: &RegionId, kind: &str, end: i64) -> Vec<(i64, i64, &'d Happened)> {
    let silence = kind != "dns";
    let its = drill.timeline.iter().filter(|one| one.region == *region);
    let its: Vec<&Happened> = its.filter(|one| one.kind == kind || (silence && one.kind == "silent")).collect();
    let ends = its.iter().skip(1).map(|one| one.at_ms).chain([end]);
    its.iter().zip(ends).map(|(one, until)| (one.at_ms, until, *one)).collect()
}

fn stripe(canvas: &mut Canvas, spans: &[(i64, i64, &Happened)], (y, x): (f64, &dyn Fn(i64) -> f64)) {
    for (from, until, one) in spans {
        let (left, right) = (x(*from), x(*until));
        canvas.add(format_args!(
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{} ms: {}</title></rect>",
            (right - left).max(1.0),
            STRIPE - 4.0,
            colour(one.kind, &one.is),
            from,
            world::draw::escape(&one.is),
        ));
    }
}

/// A dot a request: how long it took, red where it failed.
fn requests(canvas: &mut Canvas, drill: &Measured, (top, x): (f64, &dyn Fn(i64) -> f64)) {
    let longest = drill.answered.iter().map(|one| one.1).max().unwrap_or_default().max(100);
    canvas.words((LEFT - 12.0, top + 10.0), (12.0, "end", INK), "requests of its");
    canvas.words((LEFT - 12.0, top + 25.0), (12.0, "end", INK), "clients elsewhere");
    canvas.words((LEFT - 12.0, top + 42.0), (10.0, "end", FAINT_INK), &format!("0 to {longest} ms"));
    for (at, took, failed) in &drill.answered {
        let y = top + PLOT - *took as f64 / longest as f64 * PLOT;
        let (colour, radius) = if *failed { ("#9e1b1b", 3.0) } else { ("#08519c", 1.2) };
        canvas.add(format_args!("<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>", x(*at)));
    }
}

fn axis(canvas: &mut Canvas, (begin, end): (i64, i64), (y, x): (f64, &dyn Fn(i64) -> f64)) {
    canvas.add(format_args!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{INK}\" stroke-width=\"1\" fill=\"none\"/>"));
    let step = [250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];
    let step = step.into_iter().find(|step| (end - begin) / step <= 14).unwrap_or(120_000);
    let mut at = begin.div_euclid(step) * step;
    while at <= end {
        if at >= begin {
            canvas.words((x(at), y + 16.0), (11.0, "middle", FAINT_INK), &format!("{:.1} s", at as f64 / 1000.0));
        }
        at += step;
    }
}

fn legend(canvas: &mut Canvas, y: f64) {
    let entries = [
        ("#2a8c4a", "ready, primary"),
        ("#e9b44c", "suspect, candidate"),
        ("#9e1b1b", "down"),
        ("#e2711d", "coming back"),
        ("#4a4a4a", "does not answer"),
        ("#08519c", "DNS names it"),
        ("#fbeaea", "while it lasts"),
    ];
    for (at, (colour, words)) in entries.iter().enumerate() {
        let x = 30.0 + 135.0 * at as f64;
        canvas.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\" stroke=\"{FAINT_INK}\" \
             stroke-width=\"0.5\"/>",
            y - 10.0
        ));
        canvas.words((x + 18.0, y), (12.0, "start", INK), words);
    }
}
