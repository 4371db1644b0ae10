//! Where clients are, how long they wait, and where the regions are.

use model::region::Coordinates;

use super::{Canvas, FAINT_INK, INK};
use crate::data::land;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 640.0;
const TOP: f64 = 56.0;
/// Plate carrée; what lies nearer to the poles has hardly any users.
const NORTH: f64 = 80.0;
const SOUTH: f64 = -57.0;

/// Colours by round trip: those that meet 100 ms are blue, the others warm. Told apart by the colour-blind too.
const BANDS: [(f64, &str, &str); 5] = [
    (50.0, "#08519c", "below 50 ms"),
    (100.0, "#4a9fd4", "50 to 100 ms"),
    (150.0, "#f2b134", "100 to 150 ms"),
    (250.0, "#e2711d", "150 to 250 ms"),
    (f64::INFINITY, "#9e1b1b", "250 ms and more"),
];
const REFUSED: &str = "#000000";

/// A region on the map.
#[derive(Clone, Debug)]
pub struct Marker {
    /// What stands beside it.
    pub name: String,
    /// Where it is.
    pub at: Coordinates,
    /// Whether it serves; drawn hollow where it does not.
    pub serves: bool,
}

fn point(at: Coordinates) -> (f64, f64) {
    let scale = (HEIGHT - TOP - 30.0) / (NORTH - SOUTH);
    // A little wider than high, as land at middle latitudes is seen.
    let x = WIDTH / 2.0 + (at.longitude - 8.0) * WIDTH / 362.0;
    (x, TOP + (NORTH - at.latitude) * scale)
}

/// Draws settlements (place, part of all users, round trip that half of the clients there stay below) and regions.
pub fn map(title: &str, homes: &[(Coordinates, f64, Option<f64>)], markers: &[Marker]) -> String {
    let mut canvas = Canvas::new(WIDTH, HEIGHT, title);
    canvas.words((24.0, 32.0), (20.0, "start", INK), title);
    coast(&mut canvas);
    // The large first, so that the small are not hidden.
    let mut order: Vec<_> = homes.iter().collect();
    order.sort_by(|one, other| other.1.total_cmp(&one.1));
    for (at, share, ms) in order {
        let (x, y) = point(*at);
        let colour = ms.map_or(REFUSED, band);
        // The area goes with the number of users.
        let radius = (share.sqrt() * 130.0).clamp(0.9, 14.0);
        canvas.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{colour}\" fill-opacity=\"0.75\"/>"
        ));
    }
    label(&mut canvas, markers);
    legend(&mut canvas, homes.iter().any(|home| home.2.is_none()));
    canvas.done()
}

fn band(ms: f64) -> &'static str {
    BANDS.iter().find(|(below, ..)| ms < *below).map_or(REFUSED, |(_, colour, _)| colour)
}

fn coast(canvas: &mut Canvas) {
    let mut path = String::new();
    for ring in land() {
        let (mut before, mut whole) = (None, true);
        for (longitude, latitude) in &ring {
            // A ring that goes around the back of the map is not drawn across its front.
            let jumps = before.is_none_or(|before: f64| (longitude - before).abs() > 180.0);
            whole &= before.is_none() || !jumps;
            before = Some(*longitude);
            let latitude = latitude.clamp(SOUTH, NORTH + 2.0);
            let (x, y) = point(Coordinates { latitude, longitude: *longitude });
            path.push_str(&format!("{}{x:.1} {y:.1}", if jumps { 'M' } else { 'L' }));
        }
        if whole {
            path.push('Z');
        }
    }
    canvas.add(format_args!(
        "<path d=\"{path}\" fill=\"#eceff2\" stroke=\"#cfd6dd\" stroke-width=\"0.6\" fill-rule=\"evenodd\"/>"
    ));
}

/// Markers, each with its name where no other name stands.
fn label(canvas: &mut Canvas, markers: &[Marker]) {
    let mut taken: Vec<(f64, f64, f64, f64)> = Vec::new();
    for Marker { name, at, serves } in markers {
        let (x, y) = point(*at);
        let fill = if *serves { INK } else { "#ffffff" };
        canvas.add(format_args!(
            "<path d=\"M{x:.1} {:.1}l6.5 11.5h-13z\" fill=\"{fill}\" stroke=\"#ffffff\" stroke-width=\"1.4\"/>\n\
             <path d=\"M{x:.1} {:.1}l6.5 11.5h-13z\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"0.8\"/>",
            y - 7.0,
            y - 7.0
        ));
        let width = name.len() as f64 * 6.6 + 8.0;
        let spots = [(9.0, -4.0), (-9.0 - width, -4.0), (9.0, 14.0), (-9.0 - width, 14.0), (-width / 2.0, 28.0)];
        let free = |(dx, dy): &&(f64, f64)| {
            let (left, top) = (x + dx, y + dy - 11.0);
            left > 0.0
                && left + width < WIDTH
                && taken.iter().all(|(l, t, r, b)| left > *r || left + width < *l || top > *b || top + 16.0 < *t)
        };
        let (dx, dy) = spots.iter().find(free).copied().unwrap_or(spots[0]);
        let (left, top) = (x + dx, y + dy - 11.0);
        taken.push((left, top, left + width, top + 16.0));
        canvas.add(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"16\" rx=\"3\" fill=\"#ffffff\" \
             fill-opacity=\"0.82\"/>"
        ));
        canvas.words((left + 4.0, top + 12.0), (12.0, "start", INK), name);
    }
}

fn legend(canvas: &mut Canvas, refused: bool) {
    let bands = BANDS.iter().map(|(_, colour, words)| (*colour, *words));
    let rows: Vec<_> = bands.chain(refused.then_some((REFUSED, "not served"))).collect();
    let top = HEIGHT - 34.0 - rows.len() as f64 * 18.0;
    for (at, (colour, words)) in rows.iter().enumerate() {
        let y = top + at as f64 * 18.0;
        canvas.add(format_args!("<circle cx=\"34\" cy=\"{y:.1}\" r=\"6\" fill=\"{colour}\"/>"));
        canvas.words((48.0, y + 4.0), (12.0, "start", INK), words);
    }
    let words = "Modelled round trip of the path, without the access line; area by users. Triangles are regions.";
    canvas.words((24.0, HEIGHT - 12.0), (11.0, "start", FAINT_INK), words);
}
