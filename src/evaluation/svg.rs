//! SVG pictures in the style of all plots: lines, dots and text, on light and on dark pages.

use std::fmt::{Arguments, Write};

use crate::width::{columns, width};

/// Colours and line widths by class. Colour-blind people can tell the colours `c0` to `c7` apart,
/// too. There is one set of colours for light pages and one for dark pages.
const STYLE: &str = "\
<style>
.page { fill: #ffffff } .ink { fill: #1c1c1a } .dim { fill: #5f5e58 }
.grid { stroke: #e2e1db } .frame, .rule { stroke: #8f8e86; fill: none }
.band { stroke: #1c1c1a; color: #1c1c1a; stroke-opacity: .16; fill-opacity: .16; fill: none }
.shade { fill: #1c1c1a; fill-opacity: .09 }
.trace { stroke: #1c1c1a; color: #1c1c1a }
.c0 { stroke: #2a78d6; color: #2a78d6 } .c1 { stroke: #d9541e; color: #d9541e }
.c2 { stroke: #12855d; color: #12855d } .c3 { stroke: #a87400; color: #a87400 }
.c4 { stroke: #c8457f; color: #c8457f } .c5 { stroke: #4a3aa7; color: #4a3aa7 }
.c6 { stroke: #c22f2e; color: #c22f2e } .c7 { stroke: #4f6d12; color: #4f6d12 }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }
.dot { stroke: #ffffff; stroke-width: 1.5; fill: currentColor }
.ring { stroke-width: 2; fill: #ffffff }
@media (prefers-color-scheme: dark) {
.page { fill: #191918 } .ink { fill: #f2f1ec } .dim { fill: #b3b2a9 }
.grid { stroke: #343430 } .frame, .rule { stroke: #77766e }
.band { stroke: #f2f1ec; color: #f2f1ec; stroke-opacity: .2; fill-opacity: .2 }
.shade { fill: #f2f1ec; fill-opacity: .13 } .trace { stroke: #f2f1ec; color: #f2f1ec }
.c0 { stroke: #5a9bea; color: #5a9bea } .c1 { stroke: #f07f4f; color: #f07f4f }
.c2 { stroke: #35b384; color: #35b384 } .c3 { stroke: #d9a026; color: #d9a026 }
.c4 { stroke: #e77fac; color: #e77fac } .c5 { stroke: #a196f0; color: #a196f0 }
.c6 { stroke: #ef7170; color: #ef7170 } .c7 { stroke: #93b84a; color: #93b84a }
.dot { stroke: #191918 } .ring { fill: #191918 }
}
</style>
";

/// An SVG document in the making. What is drawn later lies above what was drawn before.
///
/// Positions are in pixels from the left and the top, and are finite. A class is one or more of
/// these names, with a space between:
///
/// | class | of | |
/// |---|---|---|
/// | `ink`, `dim` | text | what matters, and what explains |
/// | `grid`, `rule` | lines | behind the data, and beside it |
/// | `frame`, `shade` | rectangles | around the data, and behind a part of it |
/// | `c0` to `c7`, `trace` | lines, dots, rings | colours of the data, and the colour of ink |
/// | `curve`, `band` | polylines | a line, and a broad light line |
///
/// A `style` is a list of further SVG attributes, or empty. Both are written as they are.
#[derive(Debug)]
pub struct Picture {
    svg: String,
}

impl Picture {
    /// Starts a picture of this size, in pixels, with an empty page.
    pub fn new(width: f64, height: f64) -> Self {
        let mut picture = Self { svg: String::new() };
        picture.write(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
             font-size=\"13\">\n{STYLE}<rect class=\"page\" width=\"{width}\" \
             height=\"{height}\"/>\n"
        ));
        picture
    }

    /// Writes `text`, which may hold any characters, from `x` on. `y` is its baseline.
    pub fn text(&mut self, class: &str, [x, y]: [f64; 2], style: &str, text: &str) {
        let text = escape(text);
        self.write(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>\n"
        ));
    }

    /// Draws a straight line.
    pub fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2], style: &str) {
        let [[x1, y1], [x2, y2]] = [from, to];
        self.write(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             {style}/>\n"
        ));
    }

    /// Draws a line through `points`. Leaves out points closer than a tenth of a pixel.
    pub fn polyline(&mut self, class: &str, style: &str, points: &[[f64; 2]]) {
        let mut points: Vec<String> =
            points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        points.dedup();
        if let [only] = &points[..] {
            // A line from a point to itself has round ends, so it appears as a dot.
            points.push(only.clone());
        }
        let points = points.join(" ");
        self.write(format_args!("<polyline class=\"{class}\" {style} points=\"{points}\"/>\n"));
    }

    /// Draws a filled circle in the colour of `class`.
    pub fn dot(&mut self, class: &str, at: [f64; 2], radius: f64) {
        self.circle(class, "dot", at, radius);
    }

    /// Draws a hollow circle in the colour of `class`. Lines do not show through.
    pub fn ring(&mut self, class: &str, at: [f64; 2], radius: f64) {
        self.circle(class, "ring", at, radius);
    }

    fn circle(&mut self, class: &str, kind: &str, [x, y]: [f64; 2], radius: f64) {
        self.write(format_args!(
            "<circle class=\"{class} {kind}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>\n"
        ));
    }

    /// Draws a rectangle. `corner` is the upper left one; `size` is width and height.
    pub fn rect(&mut self, class: &str, corner: [f64; 2], size: [f64; 2]) {
        let [x, y] = corner.map(round_to_tenth);
        let [width, height] = size.map(round_to_tenth);
        self.write(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n"
        ));
    }

    /// Ends the document and returns it.
    pub fn finish(self) -> String {
        self.svg + "</svg>\n"
    }

    fn write(&mut self, arguments: Arguments<'_>) {
        self.svg.write_fmt(arguments).expect("writing to a string does not fail");
    }
}

/// Shortens `text` to `columns_max` columns, with an ellipsis at the end. A wide character takes
/// two columns.
pub fn shorten(text: &str, columns_max: usize) -> String {
    if width(text) <= columns_max {
        return text.to_owned();
    }
    // The ellipsis takes one column.
    let mut used_columns = 1;
    let fits = |c: &char| {
        used_columns += columns(*c);
        used_columns <= columns_max
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

fn round_to_tenth(pixels: f64) -> f64 {
    (pixels * 10.0).round() / 10.0
}

/// Escapes text for XML. Control characters, which XML does not allow, are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_out_of_its_element() {
        let mut picture = Picture::new(10.0, 10.0);
        picture.text("ink", [0.0, 0.0], "", "<script>&");
        let svg = picture.finish();
        assert!(svg.contains(">&lt;script&gt;&amp;</text>"), "{svg}");
        assert_eq!(escape("\u{7}\u{ffff}é"), "\u{fffd}\u{fffd}é");
    }

    #[test]
    fn a_picture_is_one_element_of_its_size() {
        let svg = Picture::new(880.0, 600.5).finish();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 880 600.5\" width=\"880\" height=\"600.5\""), "{svg}");
    }

    #[test]
    fn points_that_look_equal_are_drawn_once_and_a_lone_point_is_seen() {
        let mut picture = Picture::new(10.0, 10.0);
        picture.polyline("curve", "", &[[1.0, 2.0], [1.01, 2.02], [3.0, 4.0]]);
        picture.polyline("curve", "", &[[5.0, 6.0]]);
        let svg = picture.finish();
        assert!(svg.contains("points=\"1.0,2.0 3.0,4.0\""), "{svg}");
        assert!(svg.contains("points=\"5.0,6.0 5.0,6.0\""), "{svg}");
    }

    #[test]
    fn long_names_are_cut_to_their_width() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("longer", 5), "long…");
        assert_eq!(shorten("纸面具照片", 7), "纸面具…");
    }
}
