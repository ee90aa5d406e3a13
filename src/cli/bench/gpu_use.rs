//! How busy the GPUs in use are, as `nvidia-smi` says.
//!
//! It knows nothing of `CUDA_VISIBLE_DEVICES` and counts GPUs by their places on the bus, which
//! CUDA does only under `CUDA_DEVICE_ORDER=PCI_BUS_ID`. So where some GPUs are hidden, or GPUs of
//! several models are mixed, another one may be looked at.

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
    /// Looks at the GPUs of these numbers.
    pub(super) fn start(gpus: Vec<usize>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut found = Vec::new();
            while let Some(percent) = look(&gpus) {
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

    /// The mean of what was seen; `None` where the tool is not installed or no GPU is in use.
    pub(super) fn mean(self) -> Option<f64> {
        self.is_over.store(true, Ordering::Relaxed);
        let found = self.thread.join().ok()?;
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    }
}

/// Of a device, by its name.
pub(super) fn gpu_number(name: &str) -> Option<usize> {
    name.strip_prefix("cuda:")?.parse().ok()
}

fn look(gpus: &[usize]) -> Option<f64> {
    if gpus.is_empty() {
        return None;
    }
    let query = ["--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    mean_of_lines(&String::from_utf8_lossy(&output.stdout), gpus)
}

/// Each line is a GPU: its number and how busy it is.
fn mean_of_lines(text: &str, gpus: &[usize]) -> Option<f64> {
    let percent = |line: &str| {
        let (number, percent) = line.split_once(',')?;
        let is_used = gpus.contains(&number.trim().parse().ok()?);
        if is_used { percent.trim().parse().ok() } else { None }
    };
    let numbers: Vec<f64> = text.lines().filter_map(percent).collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_have_numbers_and_the_cpu_has_none() {
        assert_eq!(gpu_number("cuda:12"), Some(12));
        assert_eq!(gpu_number("cpu"), None);
    }

    #[test]
    fn only_gpus_in_use_count() {
        let lines = "0, 40\n1, 5\n2, 60\n10, 7\n";
        assert_eq!(mean_of_lines(lines, &[2, 0]), Some(50.0));
        assert_eq!(mean_of_lines(lines, &[10]), Some(7.0));
        assert_eq!(mean_of_lines(lines, &[3]), None);
        assert_eq!(mean_of_lines("0, [N/A]\n", &[0]), None);
        assert_eq!(mean_of_lines("no devices were found\n", &[0]), None);
    }
}
