//! Certificates of an authority of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A chain and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn named(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority below this one.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(Self::params(name), key, &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        self.issue_for(&key, key.serialize_pem(), names, change)
    }

    /// Issues for a key whose PEM text may be of another kind.
    pub fn issue_for(
        &self,
        key: &KeyPair,
        key_pem: String,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_life(&mut params, 0, 90);
        change(&mut params);
        Pair { chain: params.signed_by(key, &self.0).unwrap().pem(), key: key_pem }
    }
}

/// From so many days after now to so many days after now.
pub fn set_life(params: &mut CertificateParams, from: i64, to: i64) {
    let at = |days: i64| {
        let distance = DAY * days.unsigned_abs() as u32;
        // An hour's room, so that day counts are not on an edge.
        let now = SystemTime::now() - Duration::from_secs(3600);
        if days < 0 { now - distance } else { now + distance }
    };
    params.not_before = at(from).into();
    params.not_after = (at(to) + Duration::from_secs(7200)).into();
}

/// A directory for pairs.
pub struct Files(pub TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `name.pem` and `name.key`.
    pub fn write(&self, name: &str, pair: &Pair) {
        fs::write(self.path(&format!("{name}.pem")), &pair.chain).unwrap();
        fs::write(self.path(&format!("{name}.key")), &pair.key).unwrap();
    }

    /// The settings that serve the pairs `names`.
    pub fn toml(&self, names: &[&str]) -> String {
        let mut toml = String::from("[tls]\nmode = \"files\"\n");
        for name in names {
            let [chain, key] = ["pem", "key"].map(|kind| self.path(&format!("{name}.{kind}")));
            toml += &format!("[[tls.certificates]]\nchain = {chain:?}\nkey = {key:?}\n");
        }
        toml
    }

    /// The same in a file, with a free port and no registry on disk.
    pub fn config(&self, names: &[&str]) -> String {
        let file = self.path("signal.toml");
        let here = "port = 0\nhostname = \"127.0.0.1\"\nregistry = \"memory\"\n";
        fs::write(&file, format!("{here}{}", self.toml(names))).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

/// Whether `openssl` succeeds, and what it says.
pub fn openssl(arguments: &[&str], directory: &Path) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
