//! A load run as an SVG picture. Its panels are stacked: latency by percentile, latency and
//! throughput over time, and the trials of a saturation search. A panel without data is left out.

mod axis;
mod panel;
mod percentiles;
mod search;
mod series;
mod timeline;
mod units;

use menshen_evaluation::svg::{Picture, shorten};

use axis::drawable;
use panel::{Frame, LEFT};
use timeline::Timeline;

/// Width of the picture, and height of its title with subtitle, in pixels.
const WIDTH: f64 = 960.0;
const HEADER: f64 = 64.0;

/// Space above a panel for its heading, and below for the labels of its horizontal axis, in pixels.
const ABOVE: f64 = 44.0;
const BELOW: f64 = 50.0;

/// Space between latency and throughput, which share a time axis. It holds a heading, in pixels.
const BETWEEN: f64 = 40.0;

/// Heights of the panels, in pixels.
const PERCENTILES_HEIGHT: f64 = 250.0;
const LATENCY_HEIGHT: f64 = 190.0;
const THROUGHPUT_HEIGHT: f64 = 110.0;
const SEARCH_HEIGHT: f64 = 230.0;

/// Maximum length of the title and the subtitle, in columns.
const TITLE_COLUMNS_MAX: usize = 78;
const SUBTITLE_COLUMNS_MAX: usize = 116;

/// What a load run is drawn from. All latencies are in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct PlotData {
    /// What was run.
    pub title: String,
    /// How it was measured, and totals.
    pub subtitle: String,
    /// One curve per kind of call. More than 7 are not drawn.
    pub curves: Vec<PercentileCurve>,
    /// One sample per second of the run, in order.
    pub seconds: Vec<SecondSample>,
    /// The trials of a saturation search; empty otherwise.
    pub trials: Vec<TrialSample>,
    /// Latency limit of the objective.
    pub slo_ms: Option<f64>,
    /// Rate that the search found, in calls a second.
    pub saturation: Option<f64>,
}

/// Latencies of one kind of call by quantile.
#[derive(Debug, Clone)]
pub struct PercentileCurve {
    /// Name of the kind of call.
    pub name: String,
    /// Pairs of a quantile in 0..=1 and a latency, ascending.
    pub points: Vec<[f64; 2]>,
}

/// One second of a run.
#[derive(Debug, Clone)]
pub struct SecondSample {
    /// Time from the start of the run to the end of this second.
    pub second: f64,
    /// Calls that were answered in this second.
    pub answered: f64,
    /// Calls that failed in this second.
    pub failed: f64,
    /// Calls that were due in this second.
    pub offered: f64,
    /// Median latency of the answers in this second; `None` without an answer.
    pub p50_ms: Option<f64>,
    /// 99th percentile of these latencies.
    pub p99_ms: Option<f64>,
    /// Largest of these latencies.
    pub max_ms: Option<f64>,
}

/// One trial of a saturation search.
#[derive(Debug, Clone)]
pub struct TrialSample {
    /// Calls a second that were due.
    pub rate: f64,
    /// Answers a second.
    pub achieved: f64,
    /// 99th percentile of the latency; `None` without an answer.
    pub p99_ms: Option<f64>,
    /// Whether the objective was met.
    pub passed: bool,
}

impl PlotData {
    fn limit_ms(&self) -> Option<f64> {
        self.slo_ms.and_then(drawable)
    }
}

/// Draws a run as an SVG document.
pub fn draw_svg(data: &PlotData) -> String {
    let timeline = Timeline::new(&data.seconds);
    let mut stack = Stack { bottom: HEADER };
    let percentiles =
        percentiles::has_data(data).then(|| stack.place(ABOVE, PERCENTILES_HEIGHT, BELOW));
    let latency = timeline.has_answers().then(|| stack.place(ABOVE, LATENCY_HEIGHT, 0.0));
    let above_throughput = if latency.is_some() { BETWEEN } else { ABOVE };
    let throughput =
        timeline.has_time().then(|| stack.place(above_throughput, THROUGHPUT_HEIGHT, BELOW));
    let search = search::has_data(data).then(|| stack.place(ABOVE, SEARCH_HEIGHT, BELOW));

    let is_empty = stack.bottom == HEADER;
    let mut picture = Picture::new(WIDTH, stack.bottom + if is_empty { BELOW } else { 0.0 });
    draw_header(&mut picture, data);
    if let Some(frame) = percentiles {
        percentiles::draw(&mut picture, frame, data);
    }
    if let Some(frame) = latency {
        timeline.draw_latency(&mut picture, frame, data.limit_ms());
    }
    if let Some(frame) = throughput {
        timeline.draw_throughput(&mut picture, frame);
    }
    if let Some(frame) = search {
        search::draw(&mut picture, frame, data);
    }
    if is_empty {
        picture.text("ink", [LEFT, HEADER + 24.0], "", "There is nothing to draw: no call ended.");
    }
    picture.finish()
}

fn draw_header(picture: &mut Picture, data: &PlotData) {
    let title = shorten(&data.title, TITLE_COLUMNS_MAX);
    picture.text("ink", [LEFT, 34.0], "font-size=\"18\" font-weight=\"600\"", &title);
    picture.text("dim", [LEFT, 58.0], "", &shorten(&data.subtitle, SUBTITLE_COLUMNS_MAX));
}

/// The panels that are placed so far, each below the one before.
struct Stack {
    bottom: f64,
}

impl Stack {
    /// Places a panel of this height, with space above and below.
    fn place(&mut self, above: f64, height: f64, below: f64) -> Frame {
        let top = self.bottom + above;
        self.bottom = top + height + below;
        Frame { top, bottom: top + height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, points: &[[f64; 2]]) -> PercentileCurve {
        PercentileCurve { name: name.to_owned(), points: points.to_vec() }
    }

    fn second(second: f64, calls: f64, latency_ms: Option<f64>) -> SecondSample {
        SecondSample {
            second,
            answered: calls,
            failed: 0.0,
            offered: calls,
            p50_ms: latency_ms,
            p99_ms: latency_ms,
            max_ms: latency_ms,
        }
    }

    fn trial(rate: f64, p99_ms: Option<f64>) -> TrialSample {
        TrialSample { rate, achieved: rate / 2.0, p99_ms, passed: p99_ms.is_some() }
    }

    /// Data of all panels with this latency, and with these rates.
    fn uniform(latency_ms: f64, rate: f64) -> PlotData {
        PlotData {
            curves: vec![curve(
                "verify",
                &[[0.0, latency_ms], [0.5, latency_ms], [1.0, latency_ms]],
            )],
            seconds: (1..5).map(|at| second(f64::from(at), rate, Some(latency_ms))).collect(),
            trials: vec![trial(rate, Some(latency_ms)), trial(rate, None)],
            slo_ms: Some(latency_ms),
            saturation: Some(rate),
            ..PlotData::default()
        }
    }

    /// Asserts that all numbers are finite and inside the picture.
    fn assert_well_formed(svg: &str) {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        let body = svg.split_once("</style>").unwrap().1;
        assert!(!body.contains("NaN") && !body.contains("inf"), "{svg}");
        let values = |name: &str| -> Vec<f64> {
            let attribute = format!(" {name}=\"");
            let rest = body.split(&attribute).skip(1);
            rest.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
        };
        let height = values("height")[0];
        for (names, most) in [(["x", "x1", "x2", "cx"], WIDTH), (["y", "y1", "y2", "cy"], height)] {
            for value in names.iter().flat_map(|name| values(name)) {
                assert!((0.0..=most).contains(&value), "{value}: {svg}");
            }
        }
        for points in body.split("points=\"").skip(1) {
            let numbers = points.split('"').next().unwrap().split([' ', ',']);
            assert!(numbers.map(|number| number.parse().unwrap()).all(f64::is_finite), "{svg}");
        }
    }

    #[test]
    fn any_data_gives_finite_numbers() {
        let extremes = [0.0, 0.05, 1.0, 60_000.0, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY];
        for latency_ms in extremes {
            for rate in extremes {
                assert_well_formed(&draw_svg(&uniform(latency_ms, rate)));
            }
        }
        for at in extremes {
            let seconds = vec![second(at, 1.0, Some(1.0)), second(at, at, Some(at))];
            assert_well_formed(&draw_svg(&PlotData { seconds, ..PlotData::default() }));
        }
        let mixed = vec![curve("a", &[]), curve("b", &[[0.0, 0.05], [1.0, 60_000.0]])];
        assert_well_formed(&draw_svg(&PlotData { curves: mixed, ..PlotData::default() }));
    }

    #[test]
    fn panels_without_data_are_left_out() {
        let headings = |data: &PlotData| {
            let svg = draw_svg(data);
            ["by percentile", "Latency over", "Throughput", "saturation:"]
                .map(|heading| svg.contains(heading))
        };
        let all = uniform(10.0, 20.0);
        assert_eq!(headings(&all), [true; 4]);
        let only_curves = PlotData { curves: all.curves.clone(), ..PlotData::default() };
        assert_eq!(headings(&only_curves), [true, false, false, false]);
        let failed = PlotData { seconds: vec![second(1.0, 0.0, None)], ..PlotData::default() };
        assert_eq!(headings(&failed), [false, false, true, false]);
        let only_trials = PlotData { trials: all.trials.clone(), ..PlotData::default() };
        assert_eq!(headings(&only_trials), [false, false, false, true]);
        assert!(draw_svg(&PlotData::default()).contains("nothing to draw"));
    }

    #[test]
    fn a_single_call_is_seen() {
        let data = PlotData {
            curves: vec![curve("verify", &[[1.0, 12.0]])],
            seconds: vec![second(0.03, 1.0, Some(12.0))],
            ..PlotData::default()
        };
        let svg = draw_svg(&data);
        assert_well_formed(&svg);
        // The curve and its end, three latencies, and the offered and the answered call.
        assert_eq!(svg.matches("<circle").count(), 2 + 3 + 2, "{svg}");
    }

    #[test]
    fn names_cannot_break_out_of_the_text() {
        let data = PlotData {
            title: "</svg>".repeat(50),
            subtitle: "a & b".to_owned(),
            curves: vec![curve("<script>", &[[0.5, 1.0]])],
            ..PlotData::default()
        };
        let svg = draw_svg(&data);
        assert_well_formed(&svg);
        assert!(svg.contains("&lt;script&gt;") && svg.contains("a &amp; b"), "{svg}");
    }
}
