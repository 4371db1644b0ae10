//! The pictures, as SVG text that stands alone.
//!
//! Begin with [`map()`] and [`cdf()`].

mod cdf;
mod map;

use std::fmt::Write;

pub use cdf::{Curve, cdf};
pub use map::{Marker, map};

/// Letters and figures of every picture.
const FONT: &str = "font-family=\"Helvetica, Arial, sans-serif\"";
/// Words and lines.
pub const INK: &str = "#1f2933";
/// What stands back.
pub const FAINT_INK: &str = "#6b7785";

/// A picture that grows as a text.
pub struct Canvas(String);

impl Canvas {
    /// An empty white picture of so many pixels; the title is for those who cannot see it.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut text = String::new();
        let _ = write!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" \
             fill=\"#ffffff\"/>\n",
            escape(title)
        );
        Self(text)
    }

    /// Adds an element as it stands.
    pub fn add(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(element);
        self.0.push('\n');
    }

    /// Words at a point, in (size, anchor, colour); `anchor` is `start`, `middle` or `end`.
    pub fn words(&mut self, (x, y): (f64, f64), (size, anchor, colour): (f64, &str, &str), text: &str) {
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" {FONT} font-size=\"{size}\" text-anchor=\"{anchor}\" \
             fill=\"{colour}\">{}</text>",
            escape(text)
        ));
    }

    /// The whole text.
    pub fn done(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Text that cannot be taken for markup.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spread::Spread;
    use model::region::Coordinates;

    /// Every element that is opened is closed, and no quote stands open: enough to see a picture that is cut off.
    fn is_whole(svg: &str) -> bool {
        let opened = svg.matches('<').count() - svg.matches("</").count() - svg.matches("/>").count();
        svg.starts_with("<svg ")
            && svg.ends_with("</svg>\n")
            && svg.matches('"').count().is_multiple_of(2)
            && opened == svg.matches("</").count()
    }

    #[test]
    fn a_name_with_an_angle_bracket_never_breaks_a_picture() {
        let at = Coordinates { latitude: 1.0, longitude: 2.0 };
        let homes = [(at, 0.5, Some(80.0)), (at, 0.1, None)];
        let drawn = map("a <b> & \"c\"", &homes, &[Marker { name: "<eu>".into(), at, serves: true }]);
        assert!(is_whole(&drawn), "{drawn}");
        assert!(drawn.contains("&lt;eu&gt;"));
        let mut spread = Spread::default();
        (1..200).for_each(|ms| spread.add(f64::from(ms)));
        let curve = Curve { name: "<now>".into(), spread: &spread, refused: 3, dashed: false };
        let drawn = cdf("title", &[curve]);
        assert!(is_whole(&drawn) && drawn.contains("&lt;now&gt;"), "{drawn}");
    }
}
