//! `dump`.

mod hex;

use std::fmt::Write as _;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use bitcask::Error;
use bitcask::inspect::{
    self, EntryInfo, EntryKind, HintInfo, ManifestInfo, SegmentInfo, SegmentItem,
};
use clap::Args;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::{self, StoppableWork};
use crate::open;
use crate::output::bytes::{encoded, escaped};
use crate::output::{Format, Printer};
use crate::program::Program;
use crate::units::{count, show_size, show_time};
use hex::{hex, read};

/// Locks and changes nothing, and reads damaged stores too. Entries that were overwritten or
/// deleted are shown as long as their segments exist.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Shows only this segment, without the manifest.
    #[arg(long, value_name = "ID")]
    segment: Option<u32>,
    /// Begins at this offset of the segment.
    #[arg(
        long,
        value_name = "BYTES",
        requires = "segment",
        default_value_t = 0,
        hide_default_value = true
    )]
    offset: u64,
    /// Shows also the bytes of each entry.
    #[arg(long)]
    hex: bool,
    /// Shows also what hints say about each entry.
    #[arg(long)]
    hints: bool,
    /// Shows at most this many bytes of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    value_bytes: u32,
}

pub(crate) fn run(args: &DumpArgs, program: &mut Program) -> Result<Exit, Failure> {
    let dir = program.dir()?;
    let refused = |error| open::refused(error, &dir);
    let ids = match args.segment {
        Some(id) => vec![id],
        None => inspect::segment_ids(&dir).map_err(refused)?,
    };
    let printer = program.printer(Format::Plain)?;
    let _stoppable = StoppableWork::begin();
    if args.segment.is_none() {
        match inspect::manifest(&dir) {
            Ok(manifest) => print_manifest(printer, &manifest)?,
            // Without a manifest, the segments are all the more interesting.
            Err(error) if !error.is_unsupported() && (error.is_corruption() || !ids.is_empty()) => {
                damage(printer, "manifest", &error.to_string())?;
            }
            Err(error) => return Err(refused(error)),
        }
    }
    for id in ids {
        dump_segment(printer, args, &dir, id)?;
    }
    Ok(Exit::Done)
}

fn dump_segment(
    printer: &mut Printer,
    args: &DumpArgs,
    dir: &Path,
    id: u32,
) -> Result<(), Failure> {
    let path = match inspect::segment(dir, id) {
        Ok(segment) => {
            print_segment(printer, &segment)?;
            segment.path
        }
        // Its entries may be readable all the same.
        Err(error) if error.is_corruption() && args.segment.is_none() => {
            damage(printer, &format!("segment {id}"), &error.to_string())?;
            dir.join(format!("{id:010}.log"))
        }
        // A merge in another process has removed it since the files were listed.
        Err(Error::MissingSegment { .. }) if args.segment.is_none() => return Ok(()),
        Err(Error::MissingSegment { .. }) if !is_listed(dir, id) => {
            let what = format!("there is no segment {id} in {}", dir.display());
            return Err(Failure::store(what, "`bitcask dump` shows all segments"));
        }
        Err(error) => return Err(open::refused(error, dir)),
    };
    let file = File::open(&path).map_err(|error| Failure::file("open", &path, &error))?;
    let mut outcome = Ok(());
    inspect::items(dir, id, args.offset, |item| {
        outcome = interrupt::check().and_then(|()| print_item(printer, args, &path, &file, item));
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome?;
    match inspect::hint(dir, id) {
        Ok(Some(hint)) => print_hint(printer, args.hints, &hint),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Returns whether the manifest says that a segment exists.
fn is_listed(dir: &Path, id: u32) -> bool {
    inspect::manifest(dir).is_ok_and(|manifest| manifest.segments.iter().any(|it| it.id == id))
}

fn damage(printer: &mut Printer, what: &str, reason: &str) -> Result<(), Failure> {
    match printer.format {
        Format::Json => printer.json(&json!({ "type": "damage", "of": what, "reason": reason })),
        _ => printer.line(&format!("{what}: {reason}")),
    }
}

fn print_manifest(printer: &mut Printer, manifest: &ManifestInfo) -> Result<(), Failure> {
    if printer.format == Format::Json {
        let segment = |listed: &inspect::ListedSegment| json!({ "id": listed.id, "merged": listed.merged, "length": listed.length });
        return printer.json(&json!({
            "type": "manifest",
            "store": format!("{:016x}", manifest.store_id),
            "seed": format!("{:016x}", manifest.hash_seed),
            "log": manifest.log,
            "log_exists": manifest.log_exists,
            "bound": manifest.bound,
            "history": manifest.history.map(|(segment, offset)| json!([segment, offset])),
            "time": manifest.time.map(show_time),
            "segments": manifest.segments.iter().map(segment).collect::<Vec<_>>(),
        }));
    }
    printer.line("manifest")?;
    printer.line(&format!("  store    {:016x}", manifest.store_id))?;
    printer.line(&format!("  seed     {:016x}", manifest.hash_seed))?;
    let state = if manifest.log_exists { "open" } else { "absent" };
    printer.line(&format!("  log      {} {state}", manifest.log))?;
    printer.line(&format!("  bound    {}", manifest.bound))?;
    if let Some((segment, offset)) = manifest.history {
        printer.line(&format!("  history  from segment {segment}, offset {offset}"))?;
    }
    if let Some(time) = manifest.time {
        printer.line(&format!("  time     {}", show_time(time)))?;
    }
    for listed in &manifest.segments {
        let kind = if listed.merged { "merged" } else { "log" };
        printer.line(&format!("  segment  {} {kind} {} bytes", listed.id, listed.length))?;
    }
    Ok(())
}

fn print_segment(printer: &mut Printer, segment: &SegmentInfo) -> Result<(), Failure> {
    let kind = if segment.merged { "merged" } else { "log" };
    if printer.format == Format::Json {
        return printer.json(&json!({
            "type": "segment",
            "id": segment.id,
            "kind": kind,
            "store": format!("{:016x}", segment.store_id),
            "created": show_time(segment.created),
            "file_size": segment.file_size,
            "sealed_length": segment.length,
        }));
    }
    let state = match segment.length {
        Some(length) => format!("sealed, {length} bytes"),
        None => "not sealed".to_owned(),
    };
    printer.line(&format!(
        "segment {} {kind}, {state}, created {}",
        segment.id,
        show_time(segment.created)
    ))
}

fn print_item(
    printer: &mut Printer,
    args: &DumpArgs,
    path: &Path,
    file: &File,
    item: &SegmentItem,
) -> Result<(), Failure> {
    let (offset, size) = match item {
        SegmentItem::Entry(entry) => {
            print_entry(printer, args, path, file, entry)?;
            (entry.offset, entry.size)
        }
        SegmentItem::End { offset, next, timestamp } => {
            let time = show_time(*timestamp);
            match printer.format {
                Format::Json => printer.json(&json!({
                    "type": "end", "offset": offset, "next": next, "timestamp": time,
                }))?,
                _ => printer.line(&format!("{offset:>10}  end     {time}  next segment {next}"))?,
            }
            return Ok(());
        }
        SegmentItem::Lost { offset, size, reason } => {
            match printer.format {
                Format::Json => printer.json(&json!({
                    "type": "lost", "offset": offset, "size": size, "reason": reason,
                }))?,
                _ => printer.line(&format!("{offset:>10}  LOST    {size} bytes: {reason}"))?,
            }
            (*offset, *size)
        }
        _ => return Ok(()),
    };
    if args.hex && printer.format != Format::Json {
        hex(printer, path, file, offset, size)
    } else {
        Ok(())
    }
}

fn print_entry(
    printer: &mut Printer,
    args: &DumpArgs,
    path: &Path,
    file: &File,
    entry: &EntryInfo,
) -> Result<(), Failure> {
    let shown = entry.value_size.min(args.value_bytes);
    let value = read(path, file, entry.value_offset, u64::from(shown))?;
    if printer.format == Format::Json {
        return printer.json(&entry_object(printer.base64(), entry, &value));
    }
    let kind = match entry.kind {
        EntryKind::Put => "put",
        EntryKind::Delete => "delete",
        _ => "mark",
    };
    // Writing to a string cannot fail.
    let mut line = format!("{:>10}  {kind:<6}  {}", entry.offset, show_time(entry.timestamp));
    if !matches!(entry.kind, EntryKind::Mark) {
        let _ = write!(line, "  {}", quoted(printer, &entry.key));
    }
    if matches!(entry.kind, EntryKind::Put) {
        match entry.raw_size {
            Some(raw) => {
                let _ = write!(line, " = {} bytes, compressed from {raw}", entry.value_size);
            }
            None if shown < entry.value_size => {
                let rest = show_size(u64::from(entry.value_size));
                let _ = write!(line, " = {}... of {rest}", quoted(printer, &value));
            }
            None => {
                let _ = write!(line, " = {}", quoted(printer, &value));
            }
        }
    }
    if let Some(time) = entry.expires_at {
        let _ = write!(line, "  expires {}", show_time(time));
    }
    if let Some((segment, offset)) = entry.mark {
        let _ = write!(line, "  durable up to segment {segment}, offset {offset}");
    }
    for (is_so, what) in [
        (entry.batch_continues, "  batch continues"),
        (entry.collides, "  hash collides"),
        (!entry.supported, "  of a newer release or another build"),
    ] {
        line += if is_so { what } else { "" };
    }
    printer.line(&line)
}

fn entry_object(base64: bool, entry: &EntryInfo, value: &[u8]) -> Value {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if !base64 => ("", text.to_owned()),
        _ => ("_base64", encoded(bytes)),
    };
    let kind = match entry.kind {
        EntryKind::Put => "put",
        EntryKind::Delete => "delete",
        _ => "mark",
    };
    let mut object = json!({
        "type": kind,
        "offset": entry.offset,
        "size": entry.size,
        "timestamp": show_time(entry.timestamp),
        "expires_at": entry.expires_at.map(show_time),
        "mark": entry.mark.map(|(segment, offset)| json!([segment, offset])),
        "batch_continues": entry.batch_continues,
        "collides": entry.collides,
        "value_size": entry.value_size,
        "raw_size": entry.raw_size,
        "supported": entry.supported,
    });
    if let Some(fields) = object.as_object_mut() {
        if entry.kind != EntryKind::Mark {
            let (suffix, key) = text(&entry.key);
            fields.insert(format!("key{suffix}"), key.into());
        }
        if entry.kind == EntryKind::Put {
            // A compressed value is not text, and neither is a part of one that was cut.
            let whole =
                entry.raw_size.is_none() && value.len() as u64 == u64::from(entry.value_size);
            let (suffix, value) =
                if whole { text(value) } else { ("_start_base64", encoded(value)) };
            fields.insert(format!("value{suffix}"), value.into());
        }
    }
    object
}

fn quoted(printer: &Printer, bytes: &[u8]) -> String {
    if printer.base64() {
        return format!("\"{}\"", encoded(bytes));
    }
    format!("\"{}\"", escaped(bytes).replace('"', "\\\""))
}

fn print_hint(printer: &mut Printer, all: bool, hint: &HintInfo) -> Result<(), Failure> {
    let json = printer.format == Format::Json;
    if json {
        printer.json(&json!({
            "type": "hint",
            "path": hint.path.display().to_string(),
            "entries": hint.entries.len(),
            "tombstones": hint.tombstones,
            "key_size": hint.key_size,
            "value_size": hint.value_size,
            "first_timestamp": show_time(hint.first_timestamp),
            "last_timestamp": show_time(hint.last_timestamp),
        }))?;
    } else {
        printer.line(&format!(
            "hint: {}, {} of them deletes, from {} to {}",
            count(hint.entries.len() as u64, "entry", "entries"),
            hint.tombstones,
            show_time(hint.first_timestamp),
            show_time(hint.last_timestamp)
        ))?;
    }
    for entry in hint.entries.iter().filter(|_| all) {
        interrupt::check()?;
        if json {
            printer.json(&json!({
                "type": "hint_entry",
                "fingerprint": format!("{:016x}", entry.fingerprint),
                "offset": entry.offset,
                "size": entry.size,
                "delete": entry.delete,
                "expires": entry.expires,
                "collides": entry.collides,
            }))?;
            continue;
        }
        let size = entry.size.map_or_else(|| "large".to_owned(), |size| format!("{size} bytes"));
        let mut line = format!("{:>10}  hash {:016x}  {size}", entry.offset, entry.fingerprint);
        for (is_so, what) in [
            (entry.delete, "  delete"),
            (entry.expires, "  expires"),
            (entry.collides, "  collides"),
        ] {
            line += if is_so { what } else { "" };
        }
        printer.line(&line)?;
    }
    Ok(())
}
