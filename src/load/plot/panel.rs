//! What all panels have in common: their frame, grid, labels and legend.

use menshen_evaluation::svg::{Picture, shorten};

use super::axis::Axis;
use super::series::Pen;
use super::units::latency;

/// Left and right edge of the panels, in pixels.
pub(super) const LEFT: f64 = 76.0;
const RIGHT: f64 = 664.0;

/// Left edge of the legends, left edge of their names, and right edges of their one or two columns
/// of numbers, in pixels.
const LEGEND: f64 = 688.0;
const LEGEND_NAMES: f64 = LEGEND + 32.0;
const LEGEND_NUMBERS: [f64; 2] = [884.0, 944.0];

/// Length of a sample of a line in a legend, and height of a line of text, in pixels.
const SAMPLE: f64 = 22.0;
const LEADING: f64 = 22.0;

/// Maximum length of a name beside two columns of numbers, in columns of text.
const NAME_COLUMNS_MAX: usize = 14;

const BOLD: &str = "font-weight=\"600\"";
const MIDDLE: &str = "text-anchor=\"middle\"";
const END: &str = "text-anchor=\"end\"";

/// A dashed line, for a limit of latency.
const DASHED: &str = "stroke-width=\"1.5\" stroke-dasharray=\"6 4\"";

/// Where a panel lies between its axes: its top and bottom edge, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Frame {
    /// Returns where a horizontal axis begins and ends.
    pub(super) fn across(self) -> [f64; 2] {
        [LEFT, RIGHT]
    }

    /// Returns where a vertical axis begins and ends.
    pub(super) fn up(self) -> [f64; 2] {
        [self.bottom, self.top]
    }

    /// Draws the frame, its heading, the grid, and the labels of the vertical axis.
    pub(super) fn draw(self, picture: &mut Picture, heading: &str, x: &Axis, y: &Axis) {
        picture.text("ink", [LEFT, self.top - 12.0], BOLD, heading);
        for tick in &x.ticks {
            picture.line("grid", [tick.at, self.top], [tick.at, self.bottom], "");
        }
        for tick in &y.ticks {
            picture.line("grid", [LEFT, tick.at], [RIGHT, tick.at], "");
            picture.text("dim", [LEFT - 8.0, tick.at + 4.5], END, &tick.label);
        }
        picture.rect("frame", [LEFT, self.top], [RIGHT - LEFT, self.bottom - self.top]);
    }

    /// Writes the labels of the horizontal axis below the frame, and its title.
    pub(super) fn label_across(self, picture: &mut Picture, x: &Axis, title: &str) {
        for tick in &x.ticks {
            picture.text("dim", [tick.at, self.bottom + 19.0], MIDDLE, &tick.label);
        }
        let middle = (LEFT + RIGHT) / 2.0;
        picture.text("dim", [middle, self.bottom + 39.0], MIDDLE, title);
    }

    /// Draws the limit of latency across the panel.
    pub(super) fn draw_limit(self, picture: &mut Picture, y: &Axis, limit_ms: Option<f64>) {
        if let Some(limit_ms) = limit_ms {
            let at = y.position(limit_ms);
            picture.line("rule", [LEFT, at], [RIGHT, at], DASHED);
        }
    }
}

/// The meaning of lines and dots, right of a panel.
pub(super) struct Legend<'a> {
    picture: &'a mut Picture,
    baseline: f64,
}

impl<'a> Legend<'a> {
    /// Starts a legend. `columns` are headings of numbers, at most two.
    pub(super) fn new(picture: &'a mut Picture, frame: Frame, columns: &[&str]) -> Self {
        let mut legend = Self { picture, baseline: frame.top + 10.0 };
        if !columns.is_empty() {
            legend.write_numbers("dim", columns);
            legend.baseline += LEADING;
        }
        legend
    }

    /// Explains a line of data.
    pub(super) fn line(&mut self, pen: Pen, name: &str, numbers: &[&str]) {
        self.straight_line(&format!("{} curve", pen.class), pen.style, name, numbers);
    }

    fn straight_line(&mut self, class: &str, style: &str, name: &str, numbers: &[&str]) {
        let y = self.sample_middle();
        self.picture.line(class, [LEGEND, y], [LEGEND + SAMPLE, y], style);
        self.write(name, numbers);
    }

    /// Explains a dot.
    pub(super) fn dot(&mut self, class: &str, radius: f64, name: &str) {
        let y = self.sample_middle();
        self.picture.dot(class, [LEGEND + SAMPLE / 2.0, y], radius);
        self.write(name, &[]);
    }

    /// Explains a ring.
    pub(super) fn ring(&mut self, class: &str, radius: f64, name: &str) {
        let y = self.sample_middle();
        self.picture.ring(class, [LEGEND + SAMPLE / 2.0, y], radius);
        self.write(name, &[]);
    }

    /// Explains a shade.
    pub(super) fn shade(&mut self, name: &str) {
        let y = self.sample_middle();
        self.picture.rect("shade", [LEGEND, y - 7.0], [SAMPLE, 14.0]);
        self.write(name, &[]);
    }

    /// Explains the limit of latency, if there is one.
    pub(super) fn limit(&mut self, limit_ms: Option<f64>) {
        if let Some(limit_ms) = limit_ms {
            self.straight_line("rule", DASHED, "SLO", &[&latency(limit_ms)]);
        }
    }

    fn sample_middle(&self) -> f64 {
        self.baseline - 4.5
    }

    fn write(&mut self, name: &str, numbers: &[&str]) {
        let name = if numbers.is_empty() { name } else { &shorten(name, NAME_COLUMNS_MAX) };
        self.picture.text("ink", [LEGEND_NAMES, self.baseline], "", name);
        self.write_numbers("ink", numbers);
        self.baseline += LEADING;
    }

    /// Writes numbers into the last columns.
    fn write_numbers(&mut self, class: &str, numbers: &[&str]) {
        for (x, number) in LEGEND_NUMBERS.iter().rev().zip(numbers.iter().rev()) {
            self.picture.text(class, [*x, self.baseline], END, number);
        }
    }
}
