//! The bytes of a file: read, and in hexadecimal view.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::failure::Failure;
use crate::interrupt;
use crate::output::Printer;

/// Number of bytes in a line of a hexadecimal view.
const HEX_LEN: usize = 16;

/// Prints bytes of a file.
pub(super) fn hex(
    printer: &mut Printer,
    path: &Path,
    file: &File,
    offset: u64,
    size: u64,
) -> Result<(), Failure> {
    let mut at = 0;
    while at < size {
        interrupt::check()?;
        let bytes = read(path, file, offset + at, (size - at).min(HEX_LEN as u64))?;
        if bytes.is_empty() {
            break;
        }
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_shown = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let text = bytes.iter().map(|byte| if is_shown(byte) { char::from(*byte) } else { '.' });
        let text: String = text.collect();
        printer.line(&format!("{:>12}  {:<47}  |{text}|", offset + at, digits.join(" ")))?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Reads bytes of a file. There are fewer where the file ends.
pub(super) fn read(path: &Path, file: &File, offset: u64, size: u64) -> Result<Vec<u8>, Failure> {
    let left = file.metadata().map(|meta| meta.len().saturating_sub(offset));
    let left = left.map_err(|error| Failure::file("read", path, &error))?;
    let mut bytes = vec![0; usize::try_from(size.min(left)).unwrap_or(0)];
    let read = file.read_at(&mut bytes, offset);
    bytes.truncate(read.map_err(|error| Failure::file("read", path, &error))?);
    Ok(bytes)
}
