//! A small file system of its own, for tests of a full or a read-only disk.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A mounted tmpfs; dropping it unmounts it.
pub struct Tmpfs(TempDir);

impl Tmpfs {
    /// Mounts one of `bytes`. Where that is not allowed, says in one line on standard error that `test` is skipped.
    pub fn mount(test: &str, bytes: usize) -> Option<Self> {
        Self::mount_as(test, "tmpfs", &format!("size={bytes},mode=0755"))
    }

    /// Mounts a ramfs, which has no end, and cannot keep room for a file.
    pub fn mount_ramfs(test: &str) -> Option<Self> {
        Self::mount_as(test, "ramfs", "mode=0755")
    }

    fn mount_as(test: &str, kind: &str, options: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(place.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(place)),
            refused => {
                let why = match refused {
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
                    Err(error) => error.to_string(),
                };
                // Not with `eprintln!`: what that says in a test that passes is not shown.
                let _ =
                    writeln!(std::io::stderr(), "test {test} ... SKIPPED: no {kind} can be mounted: {why}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it, as text.
    pub fn join(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    /// From now on nothing can be written. No file may be open for writing.
    pub fn make_read_only(&self) {
        let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).status();
        assert!(remount.unwrap().success());
    }

    /// Takes all the room that is left with a file, and gives its path: removing it makes room again. Can be repeated.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::options().append(true).create(true).open(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // At once for the eye; what is still open in it goes on until it is closed.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
