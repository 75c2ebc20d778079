//! `merge`.

use bitcask::{Bitcask, MergeOptions, MergeReport, PlannedSegment, SegmentStats};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::{self, StoppableWork};
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::progress::Progress;
use crate::{open, units};

/// Without options, merges the segments that are worth it in an idle store, by the settings.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Prints which segments would be merged, and changes nothing. Works beside a running writer.
    #[arg(long)]
    dry_run: bool,
    /// Merges all segments, however little of them is dead.
    #[arg(long, short, conflicts_with = "threshold")]
    force: bool,
    /// Merges the segments of which at least this percentage is dead.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    threshold: Option<u8>,
    /// Writes the entries in the order of their keys.
    #[arg(long)]
    ordered: bool,
    /// Reads and writes at most this many bytes per second.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    rate: Option<u64>,
}

pub(crate) fn run(args: &MergeArgs, program: &mut Program) -> Result<Exit, Failure> {
    if let Some(client) = program.remote()? {
        if args.dry_run || args.threshold.is_some() {
            let what = "--dry-run and --threshold need the figures of each segment, which only the \
                        directory of the store has";
            return Err(Failure::usage(what, "leave out --server, or use --force"));
        }
        let report = client.merge_opt(&options(args, &[]))?;
        program.printer(Format::Table)?.report(&figures(&report))?;
        return Ok(Exit::Done);
    }
    if args.dry_run {
        return dry_run(args, program);
    }
    let db = open::writable(program)?;
    let report = merge(&db, options(args, &db.segments()))?;
    db.close()?;
    program.printer(Format::Table)?.report(&figures(&report))?;
    if report.cancelled { Err(Failure::Interrupted) } else { Ok(Exit::Done) }
}

fn options(args: &MergeArgs, segments: &[SegmentStats]) -> MergeOptions<'static> {
    let mut options = MergeOptions::new().force(args.force).bytes_per_second(args.rate);
    if args.ordered {
        options = options.ordered(true);
    }
    if let Some(percent) = args.threshold {
        let least = f64::from(percent) / 100.0;
        let dead = segments.iter().filter(|segment| segment.dead_ratio() >= least);
        options = options.segments(dead.filter(|dead| !dead.history).map(|dead| dead.id));
    }
    options
}

/// Merges with a progress bar, and stops after Ctrl-C.
pub(crate) fn merge(db: &Bitcask, options: MergeOptions<'_>) -> Result<MergeReport, Failure> {
    let _stoppable = StoppableWork::begin();
    let progress = Progress::bytes("merging", Some(0));
    let options = options.progress(|now| {
        progress.set_of(now.read_size, now.total_size);
        interrupt::flow()
    });
    Ok(db.merge_opt(options)?)
}

/// Returns the figures of a merge.
pub(crate) fn figures(report: &MergeReport) -> [(&'static str, Figure); 9] {
    [
        ("segments merged", Figure::Count(report.segments_in)),
        ("segments written", Figure::Count(report.segments_out)),
        ("size before", Figure::Size(report.size_in)),
        ("size after", Figure::Size(report.size_out)),
        ("freed", Figure::Size(report.freed_size())),
        ("live entries", Figure::Count(report.live_entries)),
        ("tombstones dropped", Figure::Count(report.tombstones_dropped)),
        ("expired dropped", Figure::Count(report.expired_dropped)),
        ("duration", Figure::Time(report.duration)),
    ]
}

const HEADINGS: [&str; 4] = ["segment", "size", "live size", "reason"];

fn dry_run(args: &MergeArgs, program: &mut Program) -> Result<Exit, Failure> {
    let settings = program.settings()?.options()?;
    let db = open::read_only_with(program, settings)?;
    // A reader does not know which segments are kept for their history. No plan has those.
    let all = db.plan_merge(&MergeOptions::new().force(true))?;
    let is_free = |segment: &SegmentStats| all.segments.iter().any(|free| free.id == segment.id);
    let free: Vec<_> = db.segments().into_iter().filter(is_free).collect();
    let plan = db.plan_merge(&options(args, &free))?;
    let row = |planned: &PlannedSegment| {
        vec![
            Figure::Count(planned.id.into()),
            Figure::Size(planned.size),
            Figure::Size(planned.live_size),
            Figure::Text(planned.reason.to_string()),
        ]
    };
    let rows: Vec<_> = plan.segments.iter().map(row).collect();
    let printer = program.printer(Format::Table)?;
    if rows.is_empty() && printer.format == Format::Table {
        printer.line("nothing to merge")?;
    }
    printer.table(&HEADINGS, &rows)?;
    Ok(Exit::Done)
}
