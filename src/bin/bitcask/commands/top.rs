//! `top`: a live view of a store that another process may be writing to.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use bitcask::{Changes, Operation, ReadOnly, SegmentStats, Stats};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout as Areas};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Gauge, Paragraph, Row as TableRow, Sparkline, Table as Rows};
use ratatui::{DefaultTerminal, Frame};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::{self, StoppableWork};
use crate::program::Program;
use crate::{open, units};

/// Reads the store again and again, and shows its size, its segments, and how many changes are
/// made. Press q to leave.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How often to look.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    interval: Duration,
}

/// Number of intervals of which the changes are shown.
const HISTORY_LEN: usize = 240;
/// Maximum number of segments in the list.
const SEGMENTS_MAX: usize = 200;

pub(crate) fn run(args: &TopArgs, program: &mut Program) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("`top` needs a terminal", "use `bitcask stats` in scripts"));
    }
    let db = open::read_only(program)?;
    // A signal from elsewhere must not end the program before the terminal is as it was.
    let _stoppable = StoppableWork::begin();
    let mut terminal = ratatui::try_init().map_err(|error| Failure::output(&error))?;
    let shown = show(&mut terminal, &db, args.interval);
    ratatui::restore();
    shown.map(|()| Exit::Done)
}

fn show(terminal: &mut DefaultTerminal, db: &ReadOnly, interval: Duration) -> Result<(), Failure> {
    let mut live = LiveView::new(db)?;
    loop {
        live.look(db)?;
        terminal.draw(|frame| live.draw(frame)).map_err(|error| Failure::output(&error))?;
        if wait(interval)? {
            let pressed = event::read().map_err(|error| Failure::output(&error))?;
            match pressed {
                Event::Key(key) if key.code == KeyCode::Char('q') || key.code == KeyCode::Esc => {
                    return Ok(());
                }
                Event::Key(key)
                    if key.code == KeyCode::Char('c')
                        && key.modifiers.contains(KeyModifiers::CONTROL) =>
                {
                    return Err(Failure::Interrupted);
                }
                _ => {}
            }
        }
    }
}

/// Waits for a key. Returns whether one was pressed within the interval.
fn wait(interval: Duration) -> Result<bool, Failure> {
    // Without a wait, no key would ever be seen.
    for slice in interrupt::slices(interval.max(Duration::from_millis(1))) {
        interrupt::check()?;
        if event::poll(slice).map_err(|error| Failure::output(&error))? {
            return Ok(true);
        }
    }
    interrupt::check().map(|()| false)
}

/// What is shown.
struct LiveView {
    path: String,
    changes: Changes,
    keys: u64,
    stats: Stats,
    segments: Vec<SegmentStats>,
    puts: u64,
    deletes: u64,
    /// Number of changes in each interval, newest first.
    recent: Vec<u64>,
}

impl LiveView {
    fn new(db: &ReadOnly) -> Result<Self, Failure> {
        Ok(Self {
            path: db.path().display().to_string(),
            changes: db.changes(db.position())?,
            keys: 0,
            stats: db.stats(),
            segments: Vec::new(),
            puts: 0,
            deletes: 0,
            recent: Vec::new(),
        })
    }

    /// Catches up with the store.
    fn look(&mut self, db: &ReadOnly) -> Result<(), Failure> {
        db.refresh()?;
        let mut count = 0;
        loop {
            match self.changes.try_recv() {
                Ok(None) => break,
                Ok(Some(change)) => {
                    count += 1;
                    match change.operation {
                        Operation::Delete => self.deletes += 1,
                        Operation::Put { .. } => self.puts += 1,
                        _ => {}
                    }
                }
                // A merge or a clear was quicker. What it removed is not counted.
                Err(error) if error.needs_resync() => {
                    self.changes = db.changes(db.position())?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.recent.insert(0, count);
        self.recent.truncate(HISTORY_LEN);
        (self.keys, self.stats, self.segments) = (db.len()?, db.stats(), db.segments());
        Ok(())
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let areas = [
            Constraint::Length(4),
            Constraint::Length(3),
            Constraint::Length(8),
            Constraint::Min(3),
        ];
        let [head, dead, rate, list] = Areas::vertical(areas).areas(frame.area());
        let Stats { segments, log_size, live_size, .. } = self.stats;
        let lines = vec![
            Line::from(format!("{}    q to leave", self.path)),
            Line::from(format!(
                "{}    {}",
                units::count(self.keys, "key", "keys"),
                units::count(segments, "segment", "segments")
            )),
            Line::from(format!(
                "log {}    live {}    since the start: {}, {}",
                units::show_size(log_size),
                units::show_size(live_size),
                units::count(self.puts, "put", "puts"),
                units::count(self.deletes, "delete", "deletes")
            )),
        ];
        frame.render_widget(Paragraph::new(lines), head);
        let ratio = self.stats.dead_ratio().clamp(0.0, 1.0);
        let gauge = Gauge::default().block(Block::bordered().title("dead share")).ratio(ratio);
        frame.render_widget(gauge, dead);
        let recent = Sparkline::default().block(Block::bordered().title("changes per interval"));
        frame.render_widget(recent.data(&self.recent), rate);
        frame.render_widget(self.list(), list);
    }

    fn list(&self) -> Rows<'_> {
        let row = |segment: &SegmentStats| {
            TableRow::new([
                segment.id.to_string(),
                if segment.merged { "merged" } else { "log" }.to_owned(),
                segment.entries.to_string(),
                units::show_size(segment.size),
                units::show_share(segment.dead_ratio()),
            ])
        };
        let newest = self.segments.iter().rev().take(SEGMENTS_MAX).map(row);
        let widths = [10, 8, 12, 12, 12].map(Constraint::Length);
        let head = TableRow::new(["segment", "kind", "entries", "size", "dead share"]);
        let head = head.style(Style::new().add_modifier(Modifier::BOLD));
        Rows::new(newest, widths)
            .header(head)
            .block(Block::bordered().title("sealed segments, newest first"))
    }
}

#[cfg(test)]
mod tests {
    use bitcask::{Bitcask, Options};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn the_view_follows_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Bitcask::open(dir.path(), Options::new().segment_size(4096)).unwrap();
        writer.put("first", "value").unwrap();
        let db = ReadOnly::open(dir.path(), Options::new()).unwrap();
        let mut live = LiveView::new(&db).unwrap();
        for number in 0..100 {
            writer.put(format!("key {number}"), vec![b'x'; 100]).unwrap();
        }
        writer.delete("first").unwrap();
        live.look(&db).unwrap();
        assert_eq!((live.keys, live.puts, live.deletes), (100, 100, 1));
        assert_eq!(live.recent, [101]);
        let mut terminal = Terminal::new(TestBackend::new(90, 30)).unwrap();
        terminal.draw(|frame| live.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        for text in ["100 keys", "100 puts, 1 delete", "dead share", "segment", "log"] {
            assert!(screen.contains(text), "{text} is missing:\n{screen}");
        }
    }
}
