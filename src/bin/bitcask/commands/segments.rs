//! `segments`.

use bitcask::SegmentStats;
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::open;
use crate::output::{Figure, Format};
use crate::program::Program;

#[derive(Debug, Args)]
pub(crate) struct SegmentsArgs {}

const HEADINGS: [&str; 7] =
    ["segment", "kind", "entries", "size", "live size", "dead share", "tombstone size"];

pub(crate) fn run(_args: &SegmentsArgs, program: &mut Program) -> Result<Exit, Failure> {
    let db = open::read_only(program)?;
    let rows: Vec<_> = db.segments().iter().map(row).collect();
    program.printer(Format::Table)?.table(&HEADINGS, &rows)?;
    Ok(Exit::Done)
}

fn row(segment: &SegmentStats) -> Vec<Figure> {
    vec![
        Figure::Count(segment.id.into()),
        Figure::Text(if segment.merged { "merged" } else { "log" }.into()),
        Figure::Count(segment.entries),
        Figure::Size(segment.size),
        Figure::Size(segment.live_size),
        Figure::Share(segment.dead_ratio()),
        Figure::Size(segment.tombstone_size),
    ]
}
