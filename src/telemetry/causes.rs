//! Formats an error with its causes in one line, for logs.

use std::error::Error;

/// Returns the messages of `error` and of all its sources: `outer: inner: innermost`.
pub fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the row failed")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("the device failed")]
    struct Middle(#[source] std::fmt::Error);

    #[test]
    fn every_cause_is_named_once_from_the_outside_in() {
        let line = causes(&Outer(Middle(std::fmt::Error)));
        let innermost = std::fmt::Error.to_string();
        assert_eq!(line, format!("the row failed: the device failed: {innermost}"));
    }
}
