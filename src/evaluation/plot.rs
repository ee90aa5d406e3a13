//! The detection error trade-off (DET) as an SVG picture: a curve for each species, a band for the
//! worst species, and the threshold.

mod axis;

use std::fmt::Write;

use axis::{TICKS, is_below, position};

use crate::bounds::percent;
use crate::det::TradeOff;
use crate::rates::{SampleCounts, ThresholdReport};
use crate::width::{columns, width};

/// Left edge, top edge and side of the square between the axes, in pixels.
const LEFT: f64 = 76.0;
const TOP: f64 = 84.0;
const SIDE: f64 = 440.0;

/// Left edge of the legend, left edge of its names, and right edge of its numbers, in pixels.
const LEGEND: f64 = 548.0;
const LEGEND_TEXT: f64 = LEGEND + 34.0;
const LEGEND_RIGHT: f64 = 856.0;

/// Height of a line of the legend, in pixels.
const LEADING: f64 = 24.0;

/// Maximum number of curves: one distinct colour each. The worst species are drawn.
const CURVES_MAX: usize = 8;

/// Maximum length of a name in the legend, in columns. A wide character takes two columns.
const NAME_COLUMNS_MAX: usize = 30;

/// Colour-blind people can tell the colours of the curves apart, too. There is one set of colours
/// for light pages and one for dark pages.
const STYLE: &str = "\
<style>
.page { fill: #ffffff } .ink { fill: #1c1c1a } .dim { fill: #5f5e58 }
.grid { stroke: #e2e1db } .frame, .rule { stroke: #8f8e86; fill: none }
.band { stroke: #1c1c1a; stroke-opacity: .16; fill: none }
.c0 { stroke: #2a78d6; color: #2a78d6 } .c1 { stroke: #d9541e; color: #d9541e }
.c2 { stroke: #12855d; color: #12855d } .c3 { stroke: #a87400; color: #a87400 }
.c4 { stroke: #c8457f; color: #c8457f } .c5 { stroke: #4a3aa7; color: #4a3aa7 }
.c6 { stroke: #c22f2e; color: #c22f2e } .c7 { stroke: #4f6d12; color: #4f6d12 }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }
.dot { stroke: #ffffff; stroke-width: 1.5; fill: currentColor }
@media (prefers-color-scheme: dark) {
.page { fill: #191918 } .ink { fill: #f2f1ec } .dim { fill: #b3b2a9 }
.grid { stroke: #343430 } .frame, .rule { stroke: #77766e }
.band { stroke: #f2f1ec; stroke-opacity: .2 } .dot { stroke: #191918 }
.c0 { stroke: #5a9bea; color: #5a9bea } .c1 { stroke: #f07f4f; color: #f07f4f }
.c2 { stroke: #35b384; color: #35b384 } .c3 { stroke: #d9a026; color: #d9a026 }
.c4 { stroke: #e77fac; color: #e77fac } .c5 { stroke: #a196f0; color: #a196f0 }
.c6 { stroke: #ef7170; color: #ef7170 } .c7 { stroke: #93b84a; color: #93b84a }
}
</style>
";

/// Draws the trade-off as an SVG document. `file` is the name in the heading. `report` holds the
/// rates at the marked threshold.
pub fn draw_svg(file: &str, report: &ThresholdReport, trade_off: &TradeOff<'_>) -> String {
    let drawn: Vec<&SampleCounts> = report
        .attacks
        .iter()
        .filter(|species| species.error_rate.is_some())
        .take(CURVES_MAX)
        .collect();
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 880 600\" width=\"880\" \
         height=\"600\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n",
    );
    svg += STYLE;
    svg += "<rect class=\"page\" width=\"880\" height=\"600\"/>\n";
    draw_title(&mut svg, file, report);
    draw_axes(&mut svg);
    draw_curve(
        &mut svg,
        "band",
        "stroke-width=\"9\" stroke-linejoin=\"round\"",
        &trade_off.worst_curve(),
    );
    for (index, species) in drawn.iter().enumerate().rev() {
        draw_curve(&mut svg, &format!("curve c{index}"), "", &trade_off.curve(&species.name));
    }
    draw_threshold(&mut svg, report, &drawn);
    draw_legend(&mut svg, report, &drawn);
    svg + "</svg>\n"
}

fn draw_title(svg: &mut String, file: &str, report: &ThresholdReport) {
    let heading = format!("Presentation attack detection: {}", shorten(file, 70));
    draw_text(svg, "ink", [LEFT, 34.0], "font-size=\"18\" font-weight=\"600\"", &heading);
    draw_text(svg, "dim", [LEFT, 58.0], "", &report.describe_contents());
}

/// Draws the frame, the grid, and the labels of the axes.
fn draw_axes(svg: &mut String) {
    for (rate, label) in TICKS {
        let [x, y] = pixel([rate, rate]);
        let (right, bottom) = (LEFT + SIDE, TOP + SIDE);
        draw_line(svg, "grid", [x, TOP], [x, bottom], "");
        draw_line(svg, "grid", [LEFT, y], [right, y], "");
        draw_text(svg, "dim", [x, bottom + 20.0], "text-anchor=\"middle\"", label);
        draw_text(svg, "dim", [LEFT - 8.0, y + 4.5], "text-anchor=\"end\"", label);
    }
    draw_line(svg, "rule", pixel([0.0, 0.0]), pixel([1.0, 1.0]), "stroke-dasharray=\"2 5\"");
    write_svg(
        svg,
        format_args!(
            "<rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\"/>\n"
        ),
    );
    let middle = [LEFT + SIDE / 2.0, TOP + SIDE / 2.0];
    let below = [middle[0], TOP + SIDE + 46.0];
    draw_text(svg, "ink", below, "text-anchor=\"middle\"", "APCER, attacks that pass (%)");
    let [x, y] = [26.0, middle[1]];
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\"");
    draw_text(svg, "ink", [x, y], &turned, "BPCER, living people who do not pass (%)");
}

/// Draws the threshold: a line at its BPCER, and a dot on each curve.
fn draw_threshold(svg: &mut String, report: &ThresholdReport, drawn: &[&SampleCounts]) {
    let Some(bpcer) = report.bpcer() else { return };
    let at = |apcer: f64| pixel([apcer, bpcer.value()]);
    draw_line(svg, "rule", at(0.0), at(1.0), "stroke-dasharray=\"6 4\"");
    for (index, species) in drawn.iter().enumerate().rev() {
        if let Some(apcer) = species.error_rate {
            draw_dot(svg, &format!("c{index}"), at(apcer.value()));
        }
    }
}

fn draw_legend(svg: &mut String, report: &ThresholdReport, drawn: &[&SampleCounts]) {
    let mut y = TOP + 12.0;
    draw_text(svg, "dim", [LEGEND, y], "", "species, the worst first");
    let right = "text-anchor=\"end\"";
    let threshold = format!("APCER at {}", report.threshold);
    draw_text(svg, "dim", [LEGEND_RIGHT, y], right, &threshold);
    for (index, species) in drawn.iter().enumerate() {
        y += LEADING;
        draw_legend_line(svg, &format!("curve c{index}"), y, "");
        draw_text(svg, "ink", [LEGEND_TEXT, y], "", &shorten(&species.name, NAME_COLUMNS_MAX));
        let rate = species.error_rate.map_or(String::new(), |rate| percent(rate.value()));
        draw_text(svg, "ink", [LEGEND_RIGHT, y], right, &rate);
    }
    let others = report.attacks.len() - drawn.len();
    if others > 0 {
        y += LEADING;
        draw_text(svg, "dim", [LEGEND_TEXT, y], "", &format!("{others} more are not drawn"));
    }
    y += LEADING;
    for (class, style, meaning) in [
        ("band", "stroke-width=\"9\"", "the worst species at each threshold"),
        ("rule", "stroke-dasharray=\"6 4\"", "where the threshold lies"),
        ("rule", "stroke-dasharray=\"2 5\"", "both errors equal"),
    ] {
        y += LEADING;
        draw_legend_line(svg, class, y, style);
        draw_text(svg, "ink", [LEGEND_TEXT, y], "", meaning);
    }
    y += 2.0 * LEADING;
    draw_text(svg, "dim", [LEGEND, y], "", "Rates beyond the scale are drawn on its edge.");
}

/// Draws a sample of a line before its name in the legend.
fn draw_legend_line(svg: &mut String, class: &str, y: f64, style: &str) {
    let y = y - 4.5;
    draw_line(svg, class, [LEGEND, y], [LEGEND + 24.0, y], style);
}

/// Draws the part of a curve between the axes. Leaves out parts along the edges, and points closer
/// than a tenth of a pixel.
fn draw_curve(svg: &mut String, class: &str, style: &str, curve: &[[f64; 2]]) {
    let start = curve.iter().rposition(|point| is_below(point[1])).unwrap_or(0);
    let end = curve.iter().position(|point| is_below(point[0])).unwrap_or(curve.len());
    let inside = curve.iter().take(start.max(end) + 1).skip(start.min(end));
    let mut points: Vec<String> =
        inside.map(|point| pixel(*point)).map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
    points.dedup();
    if let [only] = &points[..] {
        // A line from a point to itself has round ends, so it appears as a dot.
        points.push(only.clone());
    }
    let points = points.join(" ");
    write_svg(svg, format_args!("<polyline class=\"{class}\" {style} points=\"{points}\"/>\n"));
}

fn draw_line(svg: &mut String, class: &str, from: [f64; 2], to: [f64; 2], style: &str) {
    let [[x1, y1], [x2, y2]] = [from, to];
    write_svg(
        svg,
        format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             {style}/>\n"
        ),
    );
}

fn draw_dot(svg: &mut String, class: &str, [x, y]: [f64; 2]) {
    write_svg(
        svg,
        format_args!("<circle class=\"{class} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>\n"),
    );
}

fn draw_text(svg: &mut String, class: &str, [x, y]: [f64; 2], style: &str, text: &str) {
    let text = escape(text);
    write_svg(
        svg,
        format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>\n"),
    );
}

fn write_svg(svg: &mut String, arguments: std::fmt::Arguments<'_>) {
    svg.write_fmt(arguments).expect("writing to a string does not fail");
}

/// Returns the position of a pair of rates, in pixels.
fn pixel([apcer, bpcer]: [f64; 2]) -> [f64; 2] {
    [LEFT + SIDE * position(apcer), TOP + SIDE * (1.0 - position(bpcer))]
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

/// Shortens `text` to `columns_max` columns, with an ellipsis at the end.
fn shorten(text: &str, columns_max: usize) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presentation::Score;
    use crate::rates::Evaluation;
    use crate::scores::read_scores;

    fn drawn(lines: &str) -> String {
        let file = format!("score,label,species\n{lines}");
        let evaluation = Evaluation::new(read_scores(file.as_bytes()).unwrap());
        let report = evaluation.report_at(Score::new(0.5).unwrap());
        draw_svg("a < b.csv", &report, &evaluation.trade_off().unwrap())
    }

    #[test]
    fn names_cannot_break_out_of_the_text() {
        let svg = drawn("1,bona fide,\n0,attack,<script>&\n");
        assert!(svg.contains("a &lt; b.csv") && svg.contains("&lt;script&gt;&amp;"), "{svg}");
        assert_eq!(escape("\u{7}\u{ffff}é"), "\u{fffd}\u{fffd}é");
    }

    #[test]
    fn each_species_has_a_curve_and_the_worst_a_band() {
        let svg = drawn("1,bona fide,\n.2,bona fide,\n0,attack,a\n.5,attack,a\n.4,attack,b\n");
        assert_eq!(svg.matches("<polyline class=\"curve").count(), 2);
        assert_eq!(svg.matches("<polyline class=\"band").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn more_species_than_colours_are_counted() {
        let attacks: String = (0..11).map(|k| format!("0.{k:02},attack,s{k}\n")).collect();
        let svg = drawn(&format!("1,bona fide,\n{attacks}"));
        assert_eq!(svg.matches("<polyline class=\"curve").count(), CURVES_MAX);
        assert!(svg.contains("3 more are not drawn"), "{svg}");
    }

    #[test]
    fn a_curve_without_errors_is_a_dot_in_the_corner() {
        let mut svg = String::new();
        draw_curve(&mut svg, "curve", "", &[[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.0, 1.0]]);
        let corner = format!("{LEFT:.1},{:.1}", TOP + SIDE);
        assert!(svg.contains(&format!("points=\"{corner} {corner}\"")), "{svg}");
    }

    #[test]
    fn a_curve_starts_at_its_last_point_without_bona_fide_errors() {
        let mut svg = String::new();
        let curve = [[1.0, 0.0], [0.1, 0.0], [0.1, 0.1], [0.0, 0.1], [0.0, 1.0]];
        draw_curve(&mut svg, "curve", "", &curve);
        let [bottom, middle, left] = [curve[1], curve[2], curve[3]].map(pixel);
        let points = [bottom, middle, left].map(|[x, y]| format!("{x:.1},{y:.1}")).join(" ");
        assert!(svg.contains(&format!("points=\"{points}\"")), "{svg}");
    }

    #[test]
    fn long_names_are_cut_to_their_width() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("longer", 5), "long…");
        assert_eq!(shorten("纸面具照片", 7), "纸面具…");
    }
}
