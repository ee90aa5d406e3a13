//! How busy GPUs are, as `nvidia-smi` says.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks; the driver itself averages over about as long.
const EVERY: Duration = Duration::from_millis(250);

/// Looks again and again until it is asked.
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<f64>>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut found = Vec::new();
            while let Some(percent) = look() {
                found.push(percent);
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(EVERY);
            }
            found
        });
        Self { is_over, thread }
    }

    /// The mean of what was seen; `None` where the tool is not installed.
    pub(super) fn mean(self) -> Option<f64> {
        self.is_over.store(true, Ordering::Relaxed);
        let found = self.thread.join().ok()?;
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    }
}

fn look() -> Option<f64> {
    let query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    mean_of_lines(&String::from_utf8_lossy(&output.stdout))
}

/// One number for each GPU.
fn mean_of_lines(text: &str) -> Option<f64> {
    let numbers: Vec<f64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_gpu() {
        assert_eq!(mean_of_lines("40\n60\n"), Some(50.0));
        assert_eq!(mean_of_lines("[N/A]\n"), None);
    }
}
