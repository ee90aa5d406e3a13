//! The detection error trade-off (DET) as an SVG picture: a curve for each species, a band for the
//! worst species, and the threshold.

mod axis;

use axis::{TICKS, is_below, position};

use crate::bounds::percent;
use crate::det::TradeOff;
use crate::rates::{SampleCounts, ThresholdReport};
use crate::svg::{Picture, shorten};

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

/// Draws the trade-off as an SVG document. `file` is the name in the heading. `report` holds the
/// rates at the marked threshold.
pub fn draw_svg(file: &str, report: &ThresholdReport, trade_off: &TradeOff<'_>) -> String {
    let drawn: Vec<&SampleCounts> = report
        .attacks
        .iter()
        .filter(|species| species.error_rate.is_some())
        .take(CURVES_MAX)
        .collect();
    let mut picture = Picture::new(880.0, 600.0);
    draw_title(&mut picture, file, report);
    draw_axes(&mut picture);
    draw_curve(
        &mut picture,
        "band",
        "stroke-width=\"9\" stroke-linejoin=\"round\"",
        &trade_off.worst_curve(),
    );
    for (index, species) in drawn.iter().enumerate().rev() {
        draw_curve(&mut picture, &format!("curve c{index}"), "", &trade_off.curve(&species.name));
    }
    draw_threshold(&mut picture, report, &drawn);
    draw_legend(&mut picture, report, &drawn);
    picture.finish()
}

fn draw_title(picture: &mut Picture, file: &str, report: &ThresholdReport) {
    let heading = format!("Presentation attack detection: {}", shorten(file, 70));
    picture.text("ink", [LEFT, 34.0], "font-size=\"18\" font-weight=\"600\"", &heading);
    picture.text("dim", [LEFT, 58.0], "", &report.describe_contents());
}

/// Draws the frame, the grid, and the labels of the axes.
fn draw_axes(picture: &mut Picture) {
    for (rate, label) in TICKS {
        let [x, y] = pixel([rate, rate]);
        let (right, bottom) = (LEFT + SIDE, TOP + SIDE);
        picture.line("grid", [x, TOP], [x, bottom], "");
        picture.line("grid", [LEFT, y], [right, y], "");
        picture.text("dim", [x, bottom + 20.0], "text-anchor=\"middle\"", label);
        picture.text("dim", [LEFT - 8.0, y + 4.5], "text-anchor=\"end\"", label);
    }
    picture.line("rule", pixel([0.0, 0.0]), pixel([1.0, 1.0]), "stroke-dasharray=\"2 5\"");
    picture.rect("frame", [LEFT, TOP], [SIDE, SIDE]);
    let middle = [LEFT + SIDE / 2.0, TOP + SIDE / 2.0];
    let below = [middle[0], TOP + SIDE + 46.0];
    picture.text("ink", below, "text-anchor=\"middle\"", "APCER, attacks that pass (%)");
    let [x, y] = [26.0, middle[1]];
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\"");
    picture.text("ink", [x, y], &turned, "BPCER, living people who do not pass (%)");
}

/// Draws the threshold: a line at its BPCER, and a dot on each curve.
fn draw_threshold(picture: &mut Picture, report: &ThresholdReport, drawn: &[&SampleCounts]) {
    let Some(bpcer) = report.bpcer() else { return };
    let at = |apcer: f64| pixel([apcer, bpcer.value()]);
    picture.line("rule", at(0.0), at(1.0), "stroke-dasharray=\"6 4\"");
    for (index, species) in drawn.iter().enumerate().rev() {
        if let Some(apcer) = species.error_rate {
            picture.dot(&format!("c{index}"), at(apcer.value()), 5.0);
        }
    }
}

fn draw_legend(picture: &mut Picture, report: &ThresholdReport, drawn: &[&SampleCounts]) {
    let mut y = TOP + 12.0;
    picture.text("dim", [LEGEND, y], "", "species, the worst first");
    let right = "text-anchor=\"end\"";
    let threshold = format!("APCER at {}", report.threshold);
    picture.text("dim", [LEGEND_RIGHT, y], right, &threshold);
    for (index, species) in drawn.iter().enumerate() {
        y += LEADING;
        draw_legend_line(picture, &format!("curve c{index}"), y, "");
        picture.text("ink", [LEGEND_TEXT, y], "", &shorten(&species.name, NAME_COLUMNS_MAX));
        let rate = species.error_rate.map_or(String::new(), |rate| percent(rate.value()));
        picture.text("ink", [LEGEND_RIGHT, y], right, &rate);
    }
    let others = report.attacks.len() - drawn.len();
    if others > 0 {
        y += LEADING;
        picture.text("dim", [LEGEND_TEXT, y], "", &format!("{others} more are not drawn"));
    }
    y += LEADING;
    for (class, style, meaning) in [
        ("band", "stroke-width=\"9\"", "the worst species at each threshold"),
        ("rule", "stroke-dasharray=\"6 4\"", "where the threshold lies"),
        ("rule", "stroke-dasharray=\"2 5\"", "both errors equal"),
    ] {
        y += LEADING;
        draw_legend_line(picture, class, y, style);
        picture.text("ink", [LEGEND_TEXT, y], "", meaning);
    }
    y += 2.0 * LEADING;
    picture.text("dim", [LEGEND, y], "", "Rates beyond the scale are drawn on its edge.");
}

/// Draws a sample of a line before its name in the legend.
fn draw_legend_line(picture: &mut Picture, class: &str, y: f64, style: &str) {
    let y = y - 4.5;
    picture.line(class, [LEGEND, y], [LEGEND + 24.0, y], style);
}

/// Draws the part of a curve between the axes. Leaves out parts along the edges.
fn draw_curve(picture: &mut Picture, class: &str, style: &str, curve: &[[f64; 2]]) {
    let start = curve.iter().rposition(|point| is_below(point[1])).unwrap_or(0);
    let end = curve.iter().position(|point| is_below(point[0])).unwrap_or(curve.len());
    let inside = curve.iter().take(start.max(end) + 1).skip(start.min(end));
    let points: Vec<[f64; 2]> = inside.map(|point| pixel(*point)).collect();
    picture.polyline(class, style, &points);
}

/// Returns the position of a pair of rates, in pixels.
fn pixel([apcer, bpcer]: [f64; 2]) -> [f64; 2] {
    [LEFT + SIDE * position(apcer), TOP + SIDE * (1.0 - position(bpcer))]
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
        let mut picture = Picture::new(880.0, 600.0);
        draw_curve(&mut picture, "curve", "", &[[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.0, 1.0]]);
        let svg = picture.finish();
        let corner = format!("{LEFT:.1},{:.1}", TOP + SIDE);
        assert!(svg.contains(&format!("points=\"{corner} {corner}\"")), "{svg}");
    }

    #[test]
    fn a_curve_starts_at_its_last_point_without_bona_fide_errors() {
        let mut picture = Picture::new(880.0, 600.0);
        let curve = [[1.0, 0.0], [0.1, 0.0], [0.1, 0.1], [0.0, 0.1], [0.0, 1.0]];
        draw_curve(&mut picture, "curve", "", &curve);
        let svg = picture.finish();
        let [bottom, middle, left] = [curve[1], curve[2], curve[3]].map(pixel);
        let points = [bottom, middle, left].map(|[x, y]| format!("{x:.1},{y:.1}")).join(" ");
        assert!(svg.contains(&format!("points=\"{points}\"")), "{svg}");
    }
}
