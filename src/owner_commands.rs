//! What an owner does from a terminal: tokens for hosts, and pods on a broker.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::{Args, Subcommand};
use gemmapod_signal::{
    Config, NotCredentialPodIds, OpenError, PodIdChange, RedbRegistry, Registry, RegistryError, Slug,
    owner::{
        client::{self, ClientError, OwnerClient},
        key::{KeyError, OwnerSecret},
        token::{self, TokenError, TokenRequest},
    },
};
use tokio::runtime::{self, Runtime};

const TOKENS: &str = "\
A released GemmaPod host (up to 0.6.2) sends no ownerToken. Once a pod id was registered with a token, it belongs to the key, and
such a host is refused. It needs a credential: gemmapod-signal credentials add --help";

/// A token that lets a host register one pod id at one broker.
#[derive(Debug, Args)]
#[command(after_help = TOKENS)]
pub struct TokenArgs {
    /// The owner's key file, as the GemmaPod CLI writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The pod id that the host registers
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pod_id: String,
    /// The public URL of the broker
    #[arg(long, value_name = "URL")]
    broker: String,
    /// How long the token is valid, at most 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    lifetime: std::time::Duration,
    /// Make a token that the broker takes only once
    #[arg(long)]
    once: bool,
}

/// The owner, and the broker that is asked.
#[derive(Debug, Args)]
pub struct SignedArgs {
    /// The owner's key file, as the GemmaPod CLI writes it
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// The public URL of the broker
    #[arg(long, value_name = "URL", global = true)]
    broker: Option<String>,
    /// Trust the certificate authority in this PEM file too
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
}

impl SignedArgs {
    /// Returns whether a running broker is asked, and not a data directory.
    pub fn is_asked_for(&self) -> bool {
        self.key.is_some() || self.broker.is_some()
    }

    /// Returns a client of the broker, and the owner's key.
    pub fn open(&self) -> Result<(OwnerClient, OwnerSecret), CommandError> {
        let broker = self.broker.as_deref().ok_or(CommandError::Missing("--broker URL"))?;
        let key = self.key.as_deref().ok_or(CommandError::Missing("--key FILE"))?;
        let secret = OwnerSecret::read(key)?;
        Ok((OwnerClient::new(broker, self.ca.as_deref())?, secret))
    }
}

/// The owner's pods on a broker.
#[derive(Debug, Args)]
pub struct PodsArgs {
    #[command(flatten)]
    signed: SignedArgs,
    #[command(subcommand)]
    action: PodsAction,
}

#[derive(Debug, Subcommand)]
enum PodsAction {
    /// Upload a pod; with --slug, as a new version of the one that is there
    Put {
        /// The HTML file
        file: PathBuf,
        /// The slug of the pod to replace
        #[arg(long, allow_hyphen_values = true)]
        slug: Option<Slug>,
        /// A file with the upload token, where the broker asks for one
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Delete pods
    Delete {
        /// Their slugs
        #[arg(required = true)]
        slugs: Vec<Slug>,
    },
    /// List all pods of the owner
    List,
}

/// Does something to each of `things`, also where it fails for others, until the broker gives no answer. Returns what to
/// print.
pub async fn each<T: Display>(
    things: &[T],
    done: &str,
    act: impl AsyncFn(&T) -> Result<(), CommandError>,
) -> Result<String, CommandError> {
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    for thing in things {
        match act(thing).await {
            Ok(()) => lines.push(format!("{done} {thing}")),
            Err(error) => {
                let has_no_answer = error.has_no_answer();
                errors.push((thing, error));
                if has_no_answer {
                    break;
                }
            }
        }
    }
    if errors.is_empty() {
        return Ok(lines.join("\n"));
    }
    lines.iter().for_each(|line| println!("{line}"));
    if things.len() == 1 {
        return Err(errors.remove(0).1);
    }
    errors.iter().for_each(|(thing, error)| eprintln!("not {done}: {thing}: {error}"));
    Err(CommandError::Some { failed: things.len() - lines.len(), all: things.len() })
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{} holds more than one token: expected nothing from line {line} on", .file.display())]
    MoreTokens { file: PathBuf, line: usize },
    #[error("{} is empty: expected a token", .0.display())]
    NoToken(PathBuf),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the pod {slug}: {error}")]
    Pod { slug: Slug, error: ClientError },
    #[error("{failed} of {all} failed, as told above")]
    Some { failed: usize, all: usize },
    #[error(transparent)]
    PodIds(#[from] NotCredentialPodIds),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the pod id {0:?} is free already")]
    Free(String),
    #[error("the system gives no runtime: {0}")]
    Runtime(std::io::Error),
}

impl CommandError {
    /// Whether the broker gave no answer, so that it gives none to the next request either.
    fn has_no_answer(&self) -> bool {
        matches!(
            self,
            Self::Client(ClientError::NoAnswer { .. })
                | Self::Pod { error: ClientError::NoAnswer { .. }, .. }
        )
    }

    /// Whether the command line, or a file that it names, is to blame.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Missing(_)
            | Self::Unreadable { .. }
            | Self::MoreTokens { .. }
            | Self::NoToken(_)
            | Self::Key(_)
            | Self::PodIds(_)
            | Self::Token(_)
            | Self::Open(OpenError::Missing(_)) => true,
            Self::Client(ClientError::NotABroker(_) | ClientError::Roots { .. }) => true,
            Self::Client(_)
            | Self::Pod { .. }
            | Self::Some { .. }
            | Self::Open(_)
            | Self::Registry(_)
            | Self::Free(_)
            | Self::Runtime(_) => false,
        }
    }
}

/// Makes a token; what to print.
pub fn token(args: &TokenArgs) -> Result<String, CommandError> {
    let secret = OwnerSecret::read(&args.key)?;
    let request = TokenRequest {
        pod_id: &args.pod_id,
        audience: &args.broker,
        lifetime: args.lifetime,
        once: args.once.then(client::nonce),
    };
    Ok(token::issue(&secret, &request, SystemTime::now())?)
}

/// Claims a pod id at a running broker; what to print.
pub fn claim(pod_id: &str, args: &SignedArgs) -> Result<String, CommandError> {
    let (client, secret) = args.open()?;
    runtime()?.block_on(client.claim(&secret, pod_id))?;
    Ok(format!("the pod id {pod_id:?} belongs to {}", secret.owner_key()))
}

/// Gives a pod id up at a running broker; what to print.
pub fn release(pod_id: &str, args: &SignedArgs) -> Result<String, CommandError> {
    let (client, secret) = args.open()?;
    runtime()?.block_on(client.release(&secret, pod_id))?;
    Ok(format!("the pod id {pod_id:?} is free"))
}

/// Makes a pod id free in the data directory of a broker that does not run; what to print.
pub fn unbind(config: &Config, pod_id: &str) -> Result<String, CommandError> {
    let unbind = async {
        let registry = RedbRegistry::open_existing(&config.data_dir)?;
        let before = registry.pod_id(pod_id).await?;
        registry.change_pod_ids(vec![(pod_id.into(), PodIdChange::Unbound)]).await?;
        registry.close().await?;
        before.map(drop).ok_or_else(|| CommandError::Free(pod_id.into()))
    };
    runtime()?.block_on(unbind)?;
    Ok(format!("the pod id {pod_id:?} is free"))
}

/// Has a broker that does not run go by the clock of this machine; what to print.
pub fn reset_clock(config: &Config) -> Result<String, CommandError> {
    let now = SystemTime::now();
    let reset = async {
        let registry = RedbRegistry::open_existing(&config.data_dir)?;
        let before = registry.acceptance_time();
        if before > now {
            registry.keep_acceptance_time(now).await?;
        }
        registry.close().await?;
        Ok::<_, CommandError>(before)
    };
    let before = runtime()?.block_on(reset)?;
    let [now_text, before_text] = [now, before].map(humantime::format_rfc3339_seconds);
    Ok(if before > now {
        format!(
            "the broker accepts what is signed from now on: its latest time was {before_text} and is now {now_text}, \
             as the clock shows. Requests and tokens that were accepted with a date between these two can be accepted \
             a second time when that date has come"
        )
    } else {
        format!("nothing to reset: the clock shows {now_text}, and nothing was accepted at a later time")
    })
}

pub fn runtime() -> Result<Runtime, CommandError> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)
}

/// Does something with the owner's pods; what to print.
pub fn pods(args: PodsArgs) -> Result<String, CommandError> {
    let (client, secret) = args.signed.open()?;
    runtime()?.block_on(act(&client, &secret, args.action))
}

/// The token in a file that holds nothing else.
fn only_word(text: &str, file: &Path) -> Result<String, CommandError> {
    let mut words = (1..)
        .zip(text.lines())
        .flat_map(|(line, words)| words.split_whitespace().map(move |word| (line, word)));
    let (_, token) = words.next().ok_or_else(|| CommandError::NoToken(file.into()))?;
    match words.next() {
        None => Ok(token.into()),
        Some((line, _)) => Err(CommandError::MoreTokens { file: file.into(), line }),
    }
}

async fn act(client: &OwnerClient, secret: &OwnerSecret, action: PodsAction) -> Result<String, CommandError> {
    let unreadable = |file: &PathBuf| {
        let file = file.clone();
        move |source| CommandError::Unreadable { file, source }
    };
    match action {
        PodsAction::Put { file, slug, token_file } => {
            let html = fs::read(&file).map_err(unreadable(&file))?.into();
            let token = match &token_file {
                Some(file) => Some(only_word(&fs::read_to_string(file).map_err(unreadable(file))?, file)?),
                None => None,
            };
            let taken = match slug {
                Some(slug) => client.replace(secret, &slug, html).await?,
                None => client.upload(secret, html, token.as_deref()).await?,
            };
            Ok(taken.url.to_string())
        }
        PodsAction::Delete { slugs } => {
            let delete = async |slug: &Slug| {
                client.delete(secret, slug).await.map_err(|error| CommandError::Pod { slug: *slug, error })
            };
            each(&slugs, "deleted", delete).await
        }
        PodsAction::List => {
            let rows = client.list(secret).await?.into_iter().map(|pod| {
                let expires = pod.expires.map(|expires| format!("  until {expires}")).unwrap_or_default();
                let unsigned = if pod.upload.as_deref() == Some("unsigned") { "  unsigned" } else { "" };
                format!(
                    "{}  {}  {:>10} bytes  {:>6} hits  {}{expires}{unsigned}",
                    pod.id, pod.created_at, pod.blob_size, pod.hits, pod.name
                )
            });
            let rows: Vec<_> = rows.collect();
            if rows.is_empty() {
                eprintln!("no pods");
            }
            Ok(rows.join("\n"))
        }
    }
}
