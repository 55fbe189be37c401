//! A folder for a test, gone when the test is.

use std::path::Path;
use tempfile::TempDir;

/// Least size of a memory file system that tests fill.
const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// A fresh folder, in memory where the system has room for that: what a test waits for should be the code and not the
/// disk, and a killed process leaves the same bytes behind on either.
///
/// # Panics
/// If no folder can be made.
pub fn fresh() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory_is_roomy()
        && let Ok(folder) = tempfile::tempdir_in(memory)
    {
        return folder;
    }
    on_disk()
}

/// A fresh folder where the system keeps temporary files: for what is large.
///
/// # Panics
/// If no folder can be made.
pub fn on_disk() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// Whether `/dev/shm` is there and not as small as containers make it by default (64 MiB).
fn memory_is_roomy() -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| roomy(line).unwrap_or(false))
}

/// Reads a line of `/proc/mounts`: device, place, type, options. Without a size the limit is half of the memory.
fn roomy(line: &str) -> Option<bool> {
    let mut words = line.split(' ').skip(1);
    let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
    if place != "/dev/shm" || kind != "tmpfs" {
        return None;
    }
    match options.split(',').find_map(|option| option.strip_prefix("size=")) {
        None => Some(true),
        Some(size) => Some(size.strip_suffix('k')?.parse::<u64>().ok()? * 1_024 >= MEMORY_BYTES_MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_room_from_the_mount() {
        for (line, expected) in [
            ("tmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0", Some(true)),
            ("shm /dev/shm tmpfs rw,nosuid,size=65536k 0 0", Some(false)),
            ("shm /dev/shm tmpfs rw,size=8388608k,inode64 0 0", Some(true)),
            ("tmpfs /run tmpfs rw 0 0", None),
            ("", None),
        ] {
            assert_eq!(roomy(line), expected, "{line}");
        }
    }
}
