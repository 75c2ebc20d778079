//! Progress bars, on standard error and only if that is a terminal.

use std::fmt;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// A bar for one piece of work.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins a bar for work that is measured in bytes.
    pub(crate) fn bytes(what: &'static str, total: Option<u64>) -> Self {
        let known = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} \
                     {eta} left";
        let unknown = "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}";
        Self::new(what, total, known, unknown)
    }

    /// Begins a bar for work that is measured in pairs or operations.
    pub(crate) fn counting(what: &'static str, total: Option<u64>) -> Self {
        let known = "{msg} {bar:30} {human_pos}/{human_len} {rate} {eta} left";
        let unknown = "{msg} {spinner} {human_pos} {rate}";
        Self::new(what, total, known, unknown)
    }

    fn new(what: &'static str, total: Option<u64>, known: &str, unknown: &str) -> Self {
        // A hidden bar draws nothing, which is what indicatif makes of a pipe.
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if total.is_some() { known } else { unknown };
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("#>-").with_key("rate", write_rate));
        bar.set_message(what);
        Self { bar }
    }

    /// Shows how much is done.
    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Shows how much is done, and how much there is to do.
    pub(crate) fn set_of(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Shows that more is done.
    pub(crate) fn add(&self, more: u64) {
        self.bar.inc(more);
    }
}

/// Writes a rate without the fractions that indicatif would show.
fn write_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // A rate is finite and not negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
    let rate = state.per_sec() as u64;
    let _ = write!(out, "{}/s", HumanCount(rate));
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
