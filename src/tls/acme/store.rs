//! What lasts: the account, certificates with their keys, and orders under way. Each is one file that is replaced
//! as a whole, so that nothing of it can be torn apart; only the owner can read it.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

/// Begins the names of files that are not yet complete.
const UNFINISHED: &str = ".unfinished-";

/// The files of one directory's account.
#[derive(Clone, Debug)]
pub struct AcmeStore {
    folder: PathBuf,
}

impl AcmeStore {
    /// The place for what belongs to the ACME directory at `url`, which need not exist yet.
    pub fn new(data_dir: &Path, url: &str) -> Self {
        let name: String = Sha256::digest(url).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { folder: data_dir.join("acme").join(name) }
    }

    pub fn account(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// The key and the certificate chain of `domain`.
    pub fn certificate(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("{domain}.pem"))
    }

    /// The order that is under way for `domain`.
    pub fn order(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("{domain}.order.json"))
    }

    /// The file at `path`, or nothing if there is none.
    pub fn read(&self, path: &Path) -> io::Result<Option<String>> {
        match fs::read(path) {
            // What is no UTF-8 is no file of ours; the caller finds that it cannot be read.
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file at `path`; when this returns it survives a power cut.
    pub fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        if !self.folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            for folder in self.folder.ancestors().skip(1).take(2) {
                File::open(folder)?.sync_all()?;
            }
        }
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        self.sync()
    }

    /// Removes the file at `path`, if it is there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps a file that is of no use under another name; the new one.
    pub fn put_aside(&self, path: &Path, now: SystemTime) -> io::Result<PathBuf> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = |n: u64| PathBuf::from(format!("{}.unusable-{}", path.display(), seconds + n));
        let free = (0..).map(aside).find(|path| !path.exists()).unwrap_or_else(|| aside(0));
        fs::rename(path, &free)?;
        self.sync()?;
        Ok(free)
    }

    /// Removes what a killed process did not finish.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                // It is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, AcmeStore) {
        let data_dir = tempfile::tempdir().unwrap();
        let store = AcmeStore::new(data_dir.path(), "https://directory.example/dir");
        (data_dir, store)
    }

    #[test]
    fn files_are_replaced_and_only_the_owner_reads_them() {
        let (_data_dir, store) = store();
        let path = store.account();
        assert_eq!(store.read(&path).unwrap(), None);
        store.write(&path, "one").unwrap();
        store.write(&path, "two").unwrap();
        assert_eq!(store.read(&path).unwrap().unwrap(), "two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&store.folder)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 1);
    }

    #[test]
    fn what_is_put_aside_is_kept_each_time() {
        let (_data_dir, store) = store();
        let path = store.account();
        for text in ["one", "two"] {
            store.write(&path, text).unwrap();
            let aside = store.put_aside(&path, UNIX_EPOCH).unwrap();
            assert_eq!(store.read(&aside).unwrap().unwrap(), text);
        }
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 2);
    }

    #[test]
    fn only_unfinished_files_are_swept_away() {
        let (_data_dir, store) = store();
        store.write(&store.account(), "kept").unwrap();
        fs::write(store.folder.join(".unfinished-1"), "half").unwrap();
        store.sweep();
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 1);
    }

    #[test]
    fn directories_do_not_share_files() {
        let of = |url| AcmeStore::new(Path::new("/data"), url).account();
        assert_ne!(of("https://a.example/dir"), of("https://b.example/dir"));
    }
}
