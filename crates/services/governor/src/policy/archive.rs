//! The container of a bundle: a gzip member (RFC 1952) around a POSIX ustar archive, read with suspicion.
//!
//! A tar reader made for backups is generous: it follows links, long-name extensions, absolute paths, and the
//! second of two entries with one name wins. Each of these is a way to have one file checked and another one
//! used. Nothing is unpacked to a disk here, and only the plainest archive is read: regular files with short
//! relative names, each once, within fixed counts and sizes, and nothing after the end.

use super::bundle::BundleError;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

/// Most bytes of a bundle as uploaded.
pub(super) const ARCHIVE_BYTES_MAX: usize = 1 << 20;
/// Most bytes of the archive inside.
pub(super) const INFLATED_BYTES_MAX: usize = 2 << 20;
/// Most bytes of one file.
pub(super) const FILE_BYTES_MAX: usize = 256 << 10;
/// Most files, `.manifest` and `.signatures.json` among them.
pub(super) const FILES_MAX: usize = 64;
/// The archive may be at most this many times larger than its compressed form.
const RATIO_MAX: usize = 200;
/// Longest name: what the header holds without extensions.
const NAME_BYTES_MAX: usize = 100;
const BLOCK: usize = 512;

/// Reads a bundle's container into its files.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
    if bytes.len() > ARCHIVE_BYTES_MAX {
        return Err(BundleError::TooLarge("1 MiB compressed"));
    }
    entries(&inflate(bytes)?)
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, BundleError> {
    let limit = INFLATED_BYTES_MAX.min(bytes.len().saturating_mul(RATIO_MAX));
    let mut decoder = GzDecoder::new(bytes);
    let mut tar = Vec::new();
    let read = decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut tar);
    if read.is_err() {
        return Err(BundleError::Malformed("not a gzip archive".into()));
    }
    if tar.len() > limit {
        return Err(BundleError::TooLarge("2 MiB inflated, and 200 times its compressed size"));
    }
    if !decoder.into_inner().is_empty() {
        return Err(BundleError::Malformed("bytes follow the gzip member".into()));
    }
    Ok(tar)
}

fn entries(tar: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
    let malformed = |what: &str| BundleError::Malformed(format!("the archive {what}"));
    let mut files = BTreeMap::new();
    let mut rest = tar;
    loop {
        let (header, after) = rest.split_first_chunk::<BLOCK>().ok_or_else(|| malformed("is cut short"))?;
        if header.iter().all(|byte| *byte == 0) {
            // Two zero blocks end an archive (POSIX.1-2017, pax); writers may pad with more of them.
            if after.len() < BLOCK || after.iter().any(|byte| *byte != 0) {
                return Err(malformed("has no proper end"));
            }
            return Ok(files);
        }
        let (name, size) =
            header_read(header).ok_or_else(|| malformed("has an entry that is not a plain file"))?;
        if !name_ok(name) {
            return Err(malformed("has an entry with a name that is not allowed"));
        }
        if size > FILE_BYTES_MAX {
            return Err(BundleError::TooLarge("256 KiB in one file"));
        }
        if files.len() == FILES_MAX {
            return Err(BundleError::TooLarge("64 files"));
        }
        let padded = size.next_multiple_of(BLOCK);
        if after.len() < padded {
            return Err(malformed("is cut short"));
        }
        let (body, next) = after.split_at(padded);
        let (content, padding) = body.split_at(size);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(malformed("hides bytes behind a file"));
        }
        if files.insert(name.to_owned(), content.to_vec()).is_some() {
            return Err(malformed("has two entries of one name"));
        }
        rest = next;
    }
}

/// Name and size of a regular file in ustar format without extensions; anything else is `None`.
fn header_read(header: &[u8; BLOCK]) -> Option<(&str, usize)> {
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    let (name, size) = (text(&header[..100])?, octal(&header[124..136])?);
    let plain = header[156] == b'0'
        && header[257..263] == *b"ustar\0"
        && header[263..265] == *b"00"
        && text(&header[157..257])?.is_empty()
        && text(&header[345..500])?.is_empty();
    (plain && octal(&header[148..156])? == sum as usize).then_some((name, size))
}

/// A NUL-padded field: nothing but NUL may follow the first NUL.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    if field[end..].iter().any(|byte| *byte != 0) {
        return None;
    }
    std::str::from_utf8(&field[..end]).ok()
}

/// An octal number, ended by NULs or spaces.
fn octal(field: &[u8]) -> Option<usize> {
    let digits = field.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    if digits == 0 || digits > 11 || field[digits..].iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    Some(field[..digits].iter().fold(0, |sum, digit| sum * 8 + usize::from(digit - b'0')))
}

/// `.manifest`, `.signatures.json`, or a relative path of plain components.
fn name_ok(name: &str) -> bool {
    let component_ok = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    matches!(name, ".manifest" | ".signatures.json")
        || (name.len() <= NAME_BYTES_MAX && name.split('/').all(component_ok))
}

/// Writes files into a container, in order of name, with no time and no owner: the same files are the same bytes.
pub(super) fn write(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, BundleError> {
    let mut tar = Vec::new();
    for (name, content) in files {
        if !name_ok(name) {
            return Err(BundleError::Malformed(format!("the file name {name:?} is not allowed")));
        }
        let mut header = [0u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    gzip.write_all(&tar)
        .and_then(|()| gzip.finish())
        .map_err(|error| BundleError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(tar: &[u8]) -> Vec<u8> {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(tar).unwrap();
        gzip.finish().unwrap()
    }

    fn one() -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([("a/b.rego".to_owned(), b"package a\n".to_vec())])
    }

    /// The archive of `one`, changed by `change`, with its checksum made right again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut tar = inflate(&write(&one()).unwrap()).unwrap();
        change(&mut tar);
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        gzip(&tar)
    }

    #[test]
    fn the_same_files_are_the_same_bytes_and_come_back() {
        assert_eq!(write(&one()).unwrap(), write(&one()).unwrap());
        assert_eq!(read(&write(&one()).unwrap()).unwrap(), one());
        assert_eq!(read(&changed(|_| ())).unwrap(), one());
    }

    #[test]
    fn f01_f02_only_the_plainest_archive_is_read() {
        let rename = |name: &'static [u8]| {
            move |tar: &mut Vec<u8>| {
                tar[..100].fill(0);
                tar[..name.len()].copy_from_slice(name);
            }
        };
        for (what, bytes) in [
            ("absolute", changed(rename(b"/a.rego"))),
            ("parent", changed(rename(b"../a.rego"))),
            ("inner parent", changed(rename(b"a/../a.rego"))),
            ("empty part", changed(rename(b"a//a.rego"))),
            ("hidden", changed(rename(b".a.rego"))),
            ("backslash", changed(rename(b"a\\b.rego"))),
            ("not utf-8", changed(rename(b"\xffa.rego"))),
            ("bytes after the name", changed(rename(b"a.rego\0b"))),
            ("no name", changed(rename(b""))),
            ("symbolic link", changed(|tar| tar[156] = b'2')),
            ("hard link", changed(|tar| tar[156] = b'1')),
            ("directory", changed(|tar| tar[156] = b'5')),
            ("device", changed(|tar| tar[156] = b'3')),
            ("pax extension", changed(|tar| tar[156] = b'x')),
            ("gnu long name", changed(|tar| tar[156] = b'L')),
            ("link name", changed(|tar| tar[157] = b'a')),
            ("prefix", changed(|tar| tar[345] = b'a')),
            ("old format", changed(|tar| tar[257..265].fill(0))),
            ("binary size", changed(|tar| tar[124] = 0x80)),
            ("negative size", changed(|tar| tar[124] = b'-')),
            ("hidden bytes", changed(|tar| tar[BLOCK + 20] = 1)),
            ("no end", changed(|tar| tar.truncate(2 * BLOCK))),
            ("half an end", changed(|tar| tar.truncate(3 * BLOCK))),
            ("after the end", changed(|tar| tar.extend_from_slice(&[1; BLOCK]))),
            ("cut in a file", changed(|tar| tar.truncate(BLOCK + 4))),
            (
                "twice",
                changed(|tar| {
                    let entry = tar[..2 * BLOCK].to_vec();
                    tar.splice(..0, entry);
                }),
            ),
            ("empty", Vec::new()),
            ("no gzip", b"PK\x03\x04".to_vec()),
            ("trailing member", [write(&one()).unwrap(), write(&one()).unwrap()].concat()),
            ("trailing bytes", [write(&one()).unwrap(), vec![0]].concat()),
        ] {
            assert!(matches!(read(&bytes), Err(BundleError::Malformed(_))), "{what}: {:?}", read(&bytes));
        }
        let mut wrong_sum = inflate(&write(&one()).unwrap()).unwrap();
        wrong_sum[0] = b'b';
        assert!(read(&gzip(&wrong_sum)).is_err());
    }

    #[test]
    fn f04_sizes_are_bounded() {
        let of = |count: usize, size: usize| {
            let content: Vec<u8> = (0..size).map(|at| (at * 7919 % 251) as u8).collect();
            (0..count).map(|n| (format!("f{n}.rego"), content.clone())).collect::<BTreeMap<_, _>>()
        };
        for (what, files) in [
            ("files", of(FILES_MAX + 1, 1)),
            ("file", of(1, FILE_BYTES_MAX + 1)),
            ("inflated", of(9, FILE_BYTES_MAX)),
        ] {
            assert!(matches!(read(&write(&files).unwrap()), Err(BundleError::TooLarge(_))), "{what}");
        }
        assert!(read(&write(&of(FILES_MAX, 1)).unwrap()).is_ok());
        assert!(matches!(read(&gzip(&vec![0; INFLATED_BYTES_MAX])), Err(BundleError::TooLarge(_))), "a bomb");
        assert!(matches!(read(&vec![0; 10 << 20]), Err(BundleError::TooLarge(_))));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_answer_not_a_panic() {
        let good = write(&one()).unwrap();
        for at in 0..good.len() {
            let _ = read(&good[..at]);
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            let _ = read(&bad);
        }
        let tar = inflate(&good).unwrap();
        for at in 0..tar.len() {
            let mut bad = tar.clone();
            bad[at] ^= 0x41;
            let _ = entries(&bad);
        }
    }
}
