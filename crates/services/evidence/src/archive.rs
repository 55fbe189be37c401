//! The bundle's container: POSIX ustar with exactly one spelling.
//!
//! Tar readers disagree, and tampering lives in the disagreement: which of two entries of one name wins, whether a size in
//! an extension beats the one in the header, what a link means, whether bytes after the end are looked at. Here there is
//! nothing to disagree about. Of a given set of files there is one archive, byte for byte, and everything else is refused:
//!
//! - entries in strictly ascending order of their names, which are `[a-z0-9._/-]`, relative, without `.` and `..`;
//! - regular files only, every header the very 512 bytes that [`write`] would make for this name and size;
//! - zero padding to 512 bytes, two zero blocks at the end, nothing behind them.
//!
//! So a byte that is flipped anywhere, headers and padding included, is found. Any `tar` still unpacks it.
//!
//! It does not compress: a compressed stream has many spellings of one content.

use std::collections::BTreeMap;

/// Largest bundle, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 1 << 30;
/// Most files in a bundle.
pub const FILES_MAX: usize = 256;
/// Longest file name, in bytes: what the header holds.
pub const NAME_BYTES_MAX: usize = 100;

const BLOCK: usize = 512;
const END: usize = 2 * BLOCK;

/// Why bytes are no bundle's archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// More bytes or files than a bundle may have.
    #[error("the archive is larger than {BUNDLE_BYTES_MAX} bytes or has more than {FILES_MAX} files")]
    TooLarge,
    /// Not the one spelling of its entries.
    #[error("the archive is not in its canonical form at byte {0}")]
    Malformed(usize),
    /// An entry that is no regular file.
    #[error("the archive holds something else than a regular file at byte {0}")]
    Entry(usize),
    /// A name outside the grammar, twice, or out of order.
    #[error("the archive holds a file whose name is not allowed, doubled or out of order at byte {0}")]
    Name(usize),
}

/// Whether a file of a bundle may have this name.
pub fn name_ok(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain))
}

/// Writes `files` as their one archive.
///
/// # Errors
/// If a name is not allowed or a limit is passed.
pub fn write(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, ArchiveError> {
    let room: usize = files.values().map(|content| BLOCK + content.len().next_multiple_of(BLOCK)).sum();
    if files.len() > FILES_MAX || room + END > BUNDLE_BYTES_MAX {
        return Err(ArchiveError::TooLarge);
    }
    let mut out = Vec::with_capacity(room + END);
    for (name, content) in files {
        if !name_ok(name) {
            return Err(ArchiveError::Name(out.len()));
        }
        out.extend_from_slice(&header(name, content.len()));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + END, 0);
    Ok(out)
}

/// Reads an archive that [`write`] could have made. The order of the checks is part of the verifiers' agreement.
///
/// # Errors
/// If it is anything else; the offset is that of the entry's header.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<&str, &[u8]>, ArchiveError> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(ArchiveError::TooLarge);
    }
    let mut files: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut at = 0;
    loop {
        let malformed = ArchiveError::Malformed(at);
        let Some(found) = bytes[at..].first_chunk::<BLOCK>() else { return Err(malformed) };
        if found.iter().all(|byte| *byte == 0) {
            let rest = &bytes[at..];
            return if rest.len() == END && rest.iter().all(|byte| *byte == 0) {
                Ok(files)
            } else {
                Err(malformed)
            };
        }
        if found[257..265] != *b"ustar\x0000" {
            return Err(malformed);
        }
        if found[156] != b'0' {
            return Err(ArchiveError::Entry(at));
        }
        let end = found[..NAME_BYTES_MAX].iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES_MAX);
        let name = std::str::from_utf8(&bytes[at..at + end]).ok().filter(|name| name_ok(name));
        let Some(name) = name.filter(|name| files.last_key_value().is_none_or(|(last, _)| last < name))
        else {
            return Err(ArchiveError::Name(at));
        };
        let size = size(&found[124..136]).filter(|size| header(name, *size) == *found);
        let from = at + BLOCK;
        let Some((size, padded)) = size.map(|size| (size, size.next_multiple_of(BLOCK))) else {
            return Err(malformed);
        };
        if files.len() == FILES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        if bytes.len() - from < padded || bytes[from + size..from + padded].iter().any(|byte| *byte != 0) {
            return Err(malformed);
        }
        files.insert(name, &bytes[from..from + size]);
        at = from + padded;
    }
}

/// Eleven octal digits and a zero byte.
fn size(field: &[u8]) -> Option<usize> {
    let (digits, end) = field.split_at(11);
    (end == [0] && digits.iter().all(|digit| matches!(digit, b'0'..=b'7')))
        .then(|| digits.iter().fold(0, |size, digit| size * 8 + usize::from(digit - b'0')))
}

/// The one header of a file: mode 0644, no owner, no time, no link, no prefix.
fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut header = [0u8; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(octal(size, 11).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum = header.iter().map(|byte| usize::from(*byte)).sum();
    header[148..155].copy_from_slice(octal(sum, 6).as_bytes());
    header
}

/// `digits` octal digits and a zero byte. Sizes are below 8⁸ and sums below 8⁶, far from the width of their fields.
fn octal(number: usize, digits: usize) -> String {
    let mut text = format!("{number:0digits$o}\0");
    text.truncate(digits + 1);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([("a/b".to_owned(), b"content".to_vec()), ("c.json".to_owned(), vec![7; 512])])
    }

    #[test]
    fn comes_back_and_has_one_spelling() {
        for files in [two(), BTreeMap::new(), BTreeMap::from([("empty".to_owned(), vec![])])] {
            let bytes = write(&files).unwrap();
            let read = read(&bytes).unwrap();
            assert_eq!(read.len(), files.len());
            for (name, content) in &files {
                assert_eq!(read[name.as_str()], content);
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_shows() {
        let good = write(&two()).unwrap();
        let names_of = |bytes: &[u8]| -> Option<Vec<(String, Vec<u8>)>> {
            read(bytes).ok().map(|files| {
                files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()
            })
        };
        let was = names_of(&good);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut touched = good.clone();
                touched[at] ^= 1 << bit;
                assert_ne!(names_of(&touched), was, "byte {at} bit {bit}");
            }
            assert_eq!(names_of(&good[..at]), None, "cut to {at}");
        }
        for extra in [vec![0], vec![0; 512], vec![1; 512], good.clone()] {
            assert_eq!(names_of(&[good.as_slice(), &extra].concat()), None);
        }
    }

    /// The archive of [`two`] with its first header changed and its checksum made right again.
    fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = write(&two()).unwrap();
        change(&mut bytes[..BLOCK]);
        bytes[148..156].copy_from_slice(b"        ");
        let sum: usize = bytes[..BLOCK].iter().map(|byte| usize::from(*byte)).sum();
        bytes[148..155].copy_from_slice(octal(sum, 6).as_bytes());
        bytes
    }

    #[test]
    fn f01_f02_f03_only_the_plainest_entries() {
        let name = |name: &'static [u8]| {
            changed(move |header| {
                header[..100].fill(0);
                header[..name.len()].copy_from_slice(name);
            })
        };
        let byte = |at: usize, value: u8| changed(move |header| header[at] = value);
        use ArchiveError::{Entry, Malformed, Name};
        for (what, bytes, error) in [
            ("absolute", name(b"/a"), Name(0)),
            ("parent", name(b"../a"), Name(0)),
            ("inner parent", name(b"a/../b"), Name(0)),
            ("this folder", name(b"./a"), Name(0)),
            ("empty part", name(b"a//b"), Name(0)),
            ("folder", name(b"a/"), Name(0)),
            ("upper case", name(b"A"), Name(0)),
            ("backslash", name(b"c:\\a"), Name(0)),
            ("space", name(b"a b"), Name(0)),
            ("not ASCII", name("ä".as_bytes()), Name(0)),
            ("not UTF-8", name(b"\xff"), Name(0)),
            ("no name", name(b""), Name(0)),
            ("out of order", name(b"d"), Name(1024)),
            ("twice", name(b"c.json"), Name(1024)),
            ("hidden behind the name", name(b"a\0b"), Malformed(0)),
            ("symbolic link", byte(156, b'2'), Entry(0)),
            ("hard link", byte(156, b'1'), Entry(0)),
            ("device", byte(156, b'3'), Entry(0)),
            ("folder", byte(156, b'5'), Entry(0)),
            ("pax extension", byte(156, b'x'), Entry(0)),
            ("long name", byte(156, b'L'), Entry(0)),
            ("old file type", byte(156, 0), Entry(0)),
            ("link name", byte(157, b'a'), Malformed(0)),
            ("prefix", byte(345, b'a'), Malformed(0)),
            ("setuid", byte(103, b'4'), Malformed(0)),
            ("owner", byte(110, b'1'), Malformed(0)),
            ("time", byte(140, b'1'), Malformed(0)),
            ("binary size", byte(124, 0x80), Malformed(0)),
            ("size beyond the end", byte(124, b'7'), Malformed(0)),
            ("another format", byte(262, b' '), Malformed(0)),
            ("gzip", b"\x1f\x8b\x08\x00".repeat(200), Malformed(0)),
            ("empty", Vec::new(), Malformed(0)),
        ] {
            assert_eq!(read(&bytes), Err(error), "{what}");
        }
    }

    #[test]
    fn f04_limits() {
        let many = (0..=FILES_MAX).map(|n| (format!("f{n:03}"), vec![])).collect::<BTreeMap<_, _>>();
        assert_eq!(write(&many), Err(ArchiveError::TooLarge));
        let mut fits = many;
        fits.pop_last();
        let mut bytes = write(&fits).unwrap();
        assert_eq!(read(&bytes).unwrap().len(), FILES_MAX);
        bytes.truncate(bytes.len() - END);
        bytes.extend_from_slice(&header("g", 0));
        bytes.resize(bytes.len() + END, 0);
        assert_eq!(read(&bytes), Err(ArchiveError::TooLarge));
        assert_eq!(write(&BTreeMap::from([("A".to_owned(), vec![])])), Err(ArchiveError::Name(0)));
    }
}
