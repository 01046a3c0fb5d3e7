//! Commands and flags.

use std::{fs, path::PathBuf};

use crate::{
    credential_commands::CredentialsArgs,
    owner_commands::{PodsArgs, SignedArgs, TokenArgs},
};
use clap::{ArgAction, Args, Parser, Subcommand};
use gemmapod_signal::config::{self, Config, ConfigError, Layers, SETTINGS};

const EXAMPLES: &str = "\
Every setting can be given in four places; the first one that names it wins:
  a flag             --port 9000, or --set signal.max_frame=64KiB for any setting
  the environment    PORT, HOST, GEMMAPOD_SIGNAL_REGISTRY, GEMMAPOD_SIGNAL_DATA, RUST_LOG;
                     GEMMAPOD_SIGNAL_SIGNAL_MAX_FRAME and so on for the others
  the --config file  TOML, for example:  port = 9000
  the default        `gemmapod-signal settings` lists all of them

Examples:
  gemmapod-signal                                  on port 8080, pods in ./gemmapod-signal-data
  gemmapod-signal -r memory -H 127.0.0.1 -p 0      for a try: any free port, nothing kept
  gemmapod-signal --config /etc/gemmapod-signal.toml
  gemmapod-signal check-config /etc/gemmapod-signal.toml

Exit codes: 0 after SIGTERM or SIGINT, 1 for a failure at run time or a second signal, 2 for a wrong flag or configuration.";

/// The signalling broker and pod host of GemmaPod.
///
/// Carries SDP and ICE candidates between pods and their owners' machines at WS /signal, takes signed pods at
/// POST /pods and serves them at /:id.
#[derive(Debug, Parser)]
#[command(name = "gemmapod-signal", version, disable_version_flag = true, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    pub flags: Flags,
    /// Print the version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The flags that make a configuration.
#[derive(Debug, Args)]
pub struct Flags {
    /// TCP port to listen on; 0 for any free one [default: 8080]
    #[arg(short, long, value_name = "PORT")]
    port: Option<String>,
    /// Address or host name to listen on [default: 0.0.0.0]
    #[arg(short = 'H', long, value_name = "HOST")]
    hostname: Option<String>,
    /// Where pods are kept: redb (on disk) or memory (lost at the end) [default: redb]
    #[arg(short, long, value_name = "KIND")]
    registry: Option<String>,
    /// Directory for everything that lasts [default: ./gemmapod-signal-data]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Read settings from a TOML file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set any setting by its name in the file; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file: exit 0, or say what is wrong and where
    CheckConfig {
        /// The TOML file
        file: PathBuf,
    },
    /// List every setting with its default and its meaning
    Settings {
        /// As the Markdown of docs/settings.md
        #[arg(long)]
        markdown: bool,
        /// As JSON with types, for the NixOS module
        #[arg(long, hide = true, conflicts_with = "markdown")]
        json: bool,
    },
    /// Delete pods from the data directory of a stopped broker, according to the settings in [janitor]
    Janitor {
        /// Only show what would be deleted
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Print the certificate authority of tls.mode = "self-signed", and how to make clients trust it
    Ca {
        #[command(flatten)]
        flags: Flags,
    },
    /// Make a pod id belong to an owner key, at a running broker; one that is in use without an owner only while its
    /// host is connected, from the host's network
    Claim {
        /// The pod id
        #[arg(allow_hyphen_values = true)]
        pod_id: String,
        #[command(flatten)]
        signed: SignedArgs,
    },
    /// Make a pod id free: one of your own at a running broker, with --key and --broker; any in the data directory of a
    /// stopped broker
    Unbind {
        /// The pod id
        #[arg(allow_hyphen_values = true)]
        pod_id: String,
        #[command(flatten)]
        signed: SignedArgs,
        #[command(flatten)]
        flags: Flags,
    },
    /// Accept signed requests again after the broker's clock was ahead: sets the latest time in the data directory of a
    /// stopped broker back to that of this machine's clock, which must be right
    ResetClock {
        #[command(flatten)]
        flags: Flags,
    },
    /// Make an ownerToken, with which a host registers a pod id for its owner
    Token(TokenArgs),
    /// Add, list and revoke the credentials with which an owner's hosts connect to a broker
    Credentials(CredentialsArgs),
    /// Upload, replace, delete and list an owner's pods on a broker
    Pods(PodsArgs),
}

/// How the authority, saved as `gemmapod-ca.pem`, is given to those that are to trust it.
pub const TRUST: &str = "\
Save the certificate above with `gemmapod-signal ca --config FILE > gemmapod-ca.pem`, bring it to each client, and there:
  Debian, Ubuntu     sudo cp gemmapod-ca.pem /usr/local/share/ca-certificates/gemmapod-ca.crt && sudo update-ca-certificates
  Fedora             sudo cp gemmapod-ca.pem /etc/pki/ca-trust/source/anchors/ && sudo update-ca-trust
  Arch               sudo trust anchor --store gemmapod-ca.pem
  macOS              sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain gemmapod-ca.pem
  Windows            certutil -addstore -f Root gemmapod-ca.pem
  NixOS              security.pki.certificateFiles = [ ./gemmapod-ca.pem ];
  Chromium (Linux)   certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n GemmaPod -i gemmapod-ca.pem
  Firefox            certutil -d sql:PROFILE_DIRECTORY -A -t C,, -n GemmaPod -i gemmapod-ca.pem
  Node               NODE_EXTRA_CA_CERTS=gemmapod-ca.pem gemmapod ...
  curl               curl --cacert gemmapod-ca.pem https://HOST/health";

/// What stands between the command line and a configuration: one sentence for each thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("cannot read the configuration {}: {source}", .file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("flag --set: expected KEY=VALUE, found {0:?}")]
    NoValue(String),
    #[error(
        "there is no certificate authority: tls.mode is not \"self-signed\"; name the configuration of the broker with --config"
    )]
    NoAuthority,
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigError>),
}

impl From<Vec<ConfigError>> for UsageError {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self::Config(errors)
    }
}

impl Flags {
    /// The configuration that file, environment and flags make together.
    pub fn config(&self) -> Result<Config, UsageError> {
        let file =
            self.config.clone().or_else(|| std::env::var_os("GEMMAPOD_SIGNAL_CONFIG").map(PathBuf::from));
        let mut layers = match &file {
            Some(file) => read(file)?,
            None => Layers::default(),
        };
        layers = layers.env(|name| std::env::var(name).ok());
        let named = [
            ("--port", "port", &self.port),
            ("--hostname", "hostname", &self.hostname),
            ("--registry", "registry", &self.registry),
            ("--data-dir", "data_dir", &self.data_dir),
        ];
        for (flag, key, value) in named {
            if let Some(value) = value {
                layers = layers.flag(flag, key, value);
            }
        }
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| UsageError::NoValue(setting.clone()))?;
            layers = layers.flag("--set", key.trim(), value.trim());
        }
        Ok(layers.finish()?)
    }
}

/// Checks one file as it stands, without environment and flags.
pub fn check_config(file: &PathBuf) -> Result<(), UsageError> {
    read(file)?.finish()?;
    Ok(())
}

fn read(file: &PathBuf) -> Result<Layers, UsageError> {
    let text =
        fs::read_to_string(file).map_err(|source| UsageError::Unreadable { file: file.clone(), source })?;
    Ok(Layers::default().toml(&file.display().to_string(), &text))
}

/// All settings as a commented TOML file: what it says is what holds.
pub fn settings_toml() -> String {
    let mut toml = String::new();
    let mut section = "";
    for setting in SETTINGS {
        let (of, name) = setting.split();
        if of != section {
            toml += &format!("\n[{of}]\n");
            section = of;
        }
        for line in setting.doc.trim_end().lines() {
            toml += &format!("#{line}\n");
        }
        toml += &match setting.default() {
            Some(default) => format!("{name} = {default}\n"),
            None => format!("# {name} =\n"),
        };
    }
    toml
}

/// All settings with their types, as `nixos-module/settings.json` has them.
pub fn settings_json() -> String {
    format!("{:#}\n", config::settings_json())
}

/// All settings as the tables of `docs/settings.md`.
pub fn settings_markdown() -> String {
    let mut markdown = String::from(
        "# Settings\n\nThis page is printed by `gemmapod-signal settings --markdown`.\n\n\
         A setting is looked for in flags, then the environment, then the `--config` file; else its default holds.\n\
         `--set KEY=VALUE` is the flag of every setting. Sizes are bytes or text such as `\"256 KiB\"`, times are text\n\
         such as `\"30s\"`.\n",
    );
    let mut section = None;
    for setting in SETTINGS {
        let (of, name) = setting.split();
        if section != Some(of) {
            let title = if of.is_empty() { "Top level".into() } else { format!("`[{of}]`") };
            markdown += &format!(
                "\n## {title}\n\n| key | default | environment | meaning |\n| --- | --- | --- | --- |\n"
            );
            section = Some(of);
        }
        let default = setting.default().map_or_else(|| "not set".into(), |default| format!("`{default}`"));
        let doc = setting.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        markdown += &format!("| `{name}` | {default} | `{}` | {doc} |\n", setting.env());
    }
    markdown
}
