//! The servers that are compared.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The flag that makes a bench serve as the floor.
pub const FLOOR: &str = "--floor-server";

/// One server that is compared.
#[derive(Clone)]
pub struct Contender {
    pub kind: Kind,
    program: PathBuf,
    args: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This broker.
    Broker,
    /// Another build of it.
    Before,
    /// `@gemmapod/signal`, as `tests/clients/setup` installs it.
    Reference,
    /// The same work and nothing else, served by the bench itself.
    Floor,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Before => "before",
            Self::Reference => "reference",
            Self::Floor => "floor",
        }
    }
}

impl Contender {
    /// This broker, the build of it that `--before PATH` names, the reference if it is installed, and the floor.
    pub fn all() -> Vec<Self> {
        let contender = |kind, program: PathBuf, args: &[&str]| Self {
            kind,
            program,
            args: args.iter().map(ToString::to_string).collect(),
        };
        let mut all = vec![contender(Kind::Broker, env!("CARGO_BIN_EXE_gemmapod-signal").into(), &[])];
        all.extend(super::option("--before").map(|path| contender(Kind::Before, path.into(), &[])));
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules");
        let node = modules.join("node/bin/node");
        if node.exists() {
            let cli = modules.join("@gemmapod/signal/dist/cli.js");
            all.push(contender(Kind::Reference, node, &[cli.to_str().expect("the path is UTF-8")]));
        } else {
            println!("the reference is left out: tests/clients/setup installs it");
        }
        all.push(contender(Kind::Floor, env::current_exe().expect("a program has a path"), &[FLOOR]));
        all
    }

    /// The command that serves on `port` of this host with `settings` of the broker and `registry`.
    pub fn command(&self, port: u16, settings: &[&str], registry: Registry<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        match (self.kind, registry) {
            (_, Registry::Memory) => command.args(["-r", "memory"]),
            (Kind::Reference, Registry::Durable(dir)) => command.args(["-r", "sqlite", "-d"]).arg(dir),
            (_, Registry::Durable(dir)) => command.args(["-r", "redb", "-d"]).arg(dir),
        };
        if matches!(self.kind, Kind::Broker | Kind::Before) {
            // The clients of a bench have few addresses. Where few files may be open, each has half of all places only if they
            // are no more than there is room for.
            let few_addresses = ["http.max_connections_per_address=20000", "http.max_connections=12000"];
            command.args(few_addresses.iter().chain(settings).flat_map(|setting| ["--set", setting]));
        }
        command
    }
}

/// Where a server keeps pods.
#[derive(Clone, Copy)]
pub enum Registry<'a> {
    Memory,
    Durable(&'a Path),
}
