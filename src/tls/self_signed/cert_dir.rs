//! The directory that the authority and the host's certificate are kept in.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, chown, fchown},
    path::{Path, PathBuf},
};

use super::authority::Made;

/// `data_dir/tls`, locked until it is dropped.
pub struct CertDir {
    directory: PathBuf,
    /// Locked: another process that looks for an authority waits until this one has made it.
    lock: File,
}

impl CertDir {
    /// Opens the directory, and makes it if it is not there.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let directory = data_dir.join("tls");
        if !directory.is_dir() {
            fs::create_dir_all(data_dir)?;
            match DirBuilder::new().mode(0o700).create(&directory) {
                // An administrator may look for the authority before the broker's own user does.
                Ok(()) => {
                    let owner = fs::metadata(data_dir)?;
                    if fs::metadata(&directory)?.uid() != owner.uid() {
                        chown(&directory, Some(owner.uid()), Some(owner.gid()))?;
                    }
                    File::open(data_dir)?.sync_all()?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let lock = File::open(&directory)?;
        lock.lock()?;
        Ok(Self { directory, lock })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `name.pem` and `name.key`; nothing if there is no certificate.
    pub fn read(&self, name: &str) -> io::Result<Option<Made>> {
        match fs::read_to_string(self.path(&format!("{name}.pem"))) {
            Ok(certificate) => {
                let key = fs::read_to_string(self.path(&format!("{name}.key")))?;
                Ok(Some(Made { certificate, key }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts `name.pem` and `name.key` in place of what is there. The certificate goes first and comes last: one that
    /// is there has its key, whenever the power goes.
    pub fn write(&self, name: &str, made: &Made) -> io::Result<()> {
        let certificate = format!("{name}.pem");
        match fs::remove_file(self.path(&certificate)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.lock.sync_all()?,
        }
        self.put(&format!("{name}.key"), &made.key)?;
        self.put(&certificate, &made.certificate)
    }

    /// Writes one file as a whole, for its owner's eyes only.
    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        let owner = self.lock.metadata()?;
        if file.as_file().metadata()?.uid() != owner.uid() {
            fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.path(name))?;
        self.lock.sync_all()
    }
}
