//! `gemmapod-signal credentials`: what lets an owner's hosts in.

use clap::{Args, Subcommand};
use gemmapod_signal::{
    CredentialName, CredentialPodIds,
    owner::{
        client::{self, OwnerClient},
        credential_client::CredentialSecret,
        key::OwnerSecret,
    },
};

use crate::owner_commands::{CommandError, SignedArgs, each, runtime};

const ABOUT: &str = "\
A released GemmaPod host sends no ownerToken. What it can do is open its socket with a name and a secret in its signal_url:

  gemmapod-signal credentials add --key owner.key --broker https://pods.example.org

prints the signal_url for [transport.dartc] in the pod.toml of the host. Whoever reads the secret can register the pod ids of this owner until the
credential is revoked. Never build a pod from a pod.toml with the secret: everybody who opens the pod could read it.";

/// The credentials of an owner's hosts on a broker.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub struct CredentialsArgs {
    #[command(flatten)]
    signed: SignedArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a credential, and print the signal_url for the pod.toml of its host
    Add {
        /// Its name, by which it is listed and revoked [default: a random name]
        #[arg(long)]
        name: Option<CredentialName>,
        /// The pod id that it is valid for; may be repeated [default: all pod ids of the owner]
        #[arg(long = "pod-id", value_name = "ID", allow_hyphen_values = true)]
        pod_ids: Vec<String>,
    },
    /// List the owner's credentials, without their secrets
    List,
    /// Revoke credentials; the sockets that were opened with them are closed
    Revoke {
        /// Their names
        #[arg(required = true)]
        names: Vec<CredentialName>,
    },
}

/// Does something with the owner's credentials. Returns what to print.
pub fn credentials(args: CredentialsArgs) -> Result<String, CommandError> {
    let (client, secret) = args.signed.open()?;
    runtime()?.block_on(act(&client, &secret, args.action))
}

async fn act(client: &OwnerClient, secret: &OwnerSecret, action: Action) -> Result<String, CommandError> {
    match action {
        Action::Add { name, pod_ids } => {
            let name = name.unwrap_or_else(random_name);
            let pod_ids = (!pod_ids.is_empty()).then(|| CredentialPodIds::try_from(pod_ids)).transpose()?;
            let credential = CredentialSecret::random();
            client.add_credential(secret, &name, &credential, pod_ids.as_ref()).await?;
            eprintln!(
                "Replace signal_url in [transport.dartc] of the host's pod.toml by this line, and restart the host. The \
                 secret is not shown again. Never build a pod from that file."
            );
            Ok(format!("signal_url = \"{}\"", signal_url(client.broker(), &name, &credential)))
        }
        Action::List => {
            let rows = client.credentials(secret).await?.into_iter().map(|credential| {
                let pod_ids = credential.pod_ids.map_or_else(
                    || "all pod ids".to_owned(),
                    |pod_ids| {
                        pod_ids.iter().map(|pod_id| format!("{pod_id:?}")).collect::<Vec<_>>().join(" ")
                    },
                );
                format!("{:<32}  {}  {pod_ids}", credential.name.as_str(), credential.created_at)
            });
            Ok(rows.collect::<Vec<_>>().join("\n"))
        }
        Action::Revoke { names } => {
            let revoke = async |name: &CredentialName| Ok(client.revoke_credential(secret, name).await?);
            each(&names, "revoked", revoke).await
        }
    }
}

/// A name that the owner has hardly given yet.
fn random_name() -> CredentialName {
    let name = format!("host-{}", &client::nonce()[..8]);
    name.parse().expect("these characters are those of a name")
}

/// The `signal_url` of a host: `ws` or `wss` as the broker's URL has `http` or `https`.
fn signal_url(broker: &str, name: &CredentialName, secret: &CredentialSecret) -> String {
    let (scheme, host) = broker.split_once("://").unwrap_or(("https", broker));
    let scheme = if scheme == "http" { "ws" } else { "wss" };
    format!("{scheme}://{name}:{}@{host}/signal", secret.expose())
}
