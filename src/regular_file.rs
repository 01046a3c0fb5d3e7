//! Files that are read as a whole, whatever their path or a link leads to.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of such a file.
const MAX_FILE: u64 = 1 << 20;

/// Opens a file; a pipe does not block it.
///
/// # Errors
///
/// It cannot be opened.
#[cfg(unix)]
pub fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    /// `O_NONBLOCK` of Linux.
    const NONBLOCK: i32 = 0o4000;
    File::options().read(true).custom_flags(NONBLOCK).open(path)
}

/// Opens a file.
///
/// # Errors
///
/// It cannot be opened.
#[cfg(not(unix))]
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Reads a regular file of at most 1 MiB.
///
/// # Errors
///
/// It cannot be read, is no regular file, or is larger.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // What is open is what is looked at, whatever the path names a moment later.
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        let problem = "it is a directory, a device or a pipe; expected a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(content)
}

/// Reads a regular file of at most 1 MiB of text.
///
/// # Errors
///
/// The same as for [`read`], or it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn only_regular_files_that_are_not_too_large_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let at_most = vec![b'x'; MAX_FILE as usize];
        fs::write(path("at-most"), &at_most).unwrap();
        fs::write(path("too-large"), [&*at_most, b"x"].concat()).unwrap();
        fs::write(path("latin-1"), b"\xe9").unwrap();
        fs::create_dir(path("directory")).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        for (name, target) in [("zero", "/dev/zero"), ("to-pipe", "pipe"), ("to-file", "at-most")] {
            symlink(target, path(name)).unwrap();
        }
        let problem = |name: &str| read(&path(name)).unwrap_err().to_string();
        for name in ["directory", "pipe", "to-pipe", "zero"] {
            let sentence = "it is a directory, a device or a pipe; expected a regular file";
            assert_eq!(problem(name), sentence, "{name}");
        }
        assert_eq!(problem("too-large"), "it is larger than 1 MiB");
        assert_eq!(read(&path("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read_text(&path("latin-1")).unwrap_err().to_string(), "it is not UTF-8");
        for name in ["at-most", "to-file"] {
            assert!(read(&path(name)).unwrap() == at_most, "{name}");
        }
    }
}
