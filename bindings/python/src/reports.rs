//! Figures and reports as dictionaries.

use bitcask::import::ImportReport;
use bitcask::{BackupReport, Counters, MergeReport, Stats};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Makes a dictionary of fields, under their names.
macro_rules! dict {
    ($py:expr, $from:expr, $($field:ident)*) => {{
        let dict = PyDict::new($py);
        $(dict.set_item(stringify!($field), $from.$field)?;)*
        dict
    }};
}

pub(crate) fn of_stats<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = dict!(
        py, stats,
        keys unfilled_shards segments sealed_segments segments_limit unmapped_segments mappings
        mappings_limit descriptors log_size live_size dead_size history_segments history_size
        keydir_size appends appended_size syncs snapshots pinned_segments pinned_size
        retired_segments reserve_size
    );
    dict.set_item("dead_ratio", stats.dead_ratio())?;
    Ok(dict)
}

pub(crate) fn of_counters<'py>(
    py: Python<'py>,
    counters: &Counters,
) -> PyResult<Bound<'py, PyDict>> {
    Ok(dict!(
        py, counters,
        gets hits misses puts deletes conflicts bytes_read bytes_written syncs merges
    ))
}

pub(crate) fn of_merge<'py>(py: Python<'py>, report: &MergeReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = dict!(
        py, report,
        segments_in size_in segments_out size_out live_entries tombstones_kept tombstones_dropped
        expired_dropped cancelled
    );
    dict.set_item("duration", report.duration.as_secs_f64())?;
    Ok(dict)
}

pub(crate) fn of_backup<'py>(
    py: Python<'py>,
    report: &BackupReport,
) -> PyResult<Bound<'py, PyDict>> {
    Ok(dict!(py, report, segments linked size copied_size))
}

pub(crate) fn of_import<'py>(
    py: Python<'py>,
    report: &ImportReport,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = dict!(
        py, report,
        files records deletes keys written written_size unchanged kept expired skipped_count
    );
    let skipped: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
    dict.set_item("skipped", skipped)?;
    dict.set_item("is_complete", report.is_complete())?;
    Ok(dict)
}
