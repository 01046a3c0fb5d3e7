//! Starts the process: command line, log, server, signals, exit code.

mod cli;
mod credential_commands;
mod owner_commands;
mod systemd;

use std::{error::Error, fmt::Display, io, process::ExitCode, time::Duration};

use clap::Parser;
use gemmapod_signal::{
    Config, SelfSignedError, ServerHandle, SignalServer, authority_pem,
    config::TlsMode,
    telemetry::{self, LogHandle},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    cli::{Cli, Command, Flags, UsageError},
    owner_commands::CommandError,
};

/// Wrong flags and wrong configuration.
const USAGE: u8 = 2;
/// Failures at run time.
const FAILURE: u8 = 1;

/// How long calls that have not returned are waited for at the end, if `drain_timeout` leaves as much.
const HANGING: Duration = Duration::from_secs(1);

/// Open files for HTTP connections, uploads and the registry.
const FILES_BESIDE_SOCKETS: u64 = 2000;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::CheckConfig { file }) => match cli::check_config(&file) {
            Ok(()) => {
                println!("{} is valid", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error, USAGE),
        },
        Some(Command::Settings { markdown, json }) => {
            let settings = match (markdown, json) {
                (true, _) => cli::settings_markdown(),
                (_, true) => cli::settings_json(),
                _ => cli::settings_toml(),
            };
            print!("{settings}");
            ExitCode::SUCCESS
        }
        Some(Command::Ca { flags }) => match flags.config() {
            Ok(config) if config.tls_mode() != TlsMode::SelfSigned => {
                complain(&UsageError::NoAuthority, USAGE)
            }
            Ok(config) => print_authority(&config),
            Err(error) => complain(&error, USAGE),
        },
        Some(Command::Claim { pod_id, signed }) => print_or_complain(owner_commands::claim(&pod_id, &signed)),
        Some(Command::Unbind { pod_id, signed, .. }) if signed.is_asked_for() => {
            print_or_complain(owner_commands::release(&pod_id, &signed))
        }
        Some(Command::Unbind { pod_id, flags, .. }) => match flags.config() {
            Ok(config) => print_or_complain(owner_commands::unbind(&config, &pod_id)),
            Err(error) => complain(&error, USAGE),
        },
        Some(Command::ResetClock { flags }) => match flags.config() {
            Ok(config) => print_or_complain(owner_commands::reset_clock(&config)),
            Err(error) => complain(&error, USAGE),
        },
        Some(Command::Token(args)) => print_or_complain(owner_commands::token(&args)),
        Some(Command::Credentials(args)) => print_or_complain(credential_commands::credentials(args)),
        Some(Command::Pods(args)) => print_or_complain(owner_commands::pods(args)),
        Some(Command::Janitor { dry_run, flags }) => match flags.config() {
            Ok(config) => run_janitor(&config, dry_run),
            Err(error) => complain(&error, USAGE),
        },
        None => match cli.flags.config() {
            Ok(config) => run(cli.flags, config),
            Err(error) => complain(&error, USAGE),
        },
    }
}

fn print_or_complain(done: Result<String, CommandError>) -> ExitCode {
    match done {
        Ok(text) => {
            if !text.is_empty() {
                println!("{text}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, if error.is_usage() { USAGE } else { FAILURE }),
    }
}

fn complain(problem: &dyn Display, code: u8) -> ExitCode {
    for line in problem.to_string().lines() {
        eprintln!("gemmapod-signal: {line}");
    }
    ExitCode::from(code)
}

/// The certificate goes where it can be saved, what to do with it to people.
fn print_authority(config: &Config) -> ExitCode {
    telemetry::init(&config.log);
    match authority_pem(config) {
        Ok(pem) => {
            print!("{pem}");
            eprintln!("{}", cli::TRUST);
            ExitCode::SUCCESS
        }
        Err(error @ SelfSignedError::Missing(_)) => complain(&error, USAGE),
        Err(error) => complain(&error, FAILURE),
    }
}

fn run_janitor(config: &Config, dry_run: bool) -> ExitCode {
    telemetry::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, FAILURE),
    };
    match runtime.block_on(gemmapod_signal::run_janitor(config, dry_run)) {
        Ok(report) if dry_run => {
            println!("nothing is deleted in this dry run; otherwise it would be: {report}")
        }
        Ok(report) => println!("{report}"),
        Err(error) => return complain(&error, if error.is_usage() { USAGE } else { FAILURE }),
    }
    ExitCode::SUCCESS
}

fn run(flags: Flags, config: Config) -> ExitCode {
    let log = telemetry::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, FAILURE),
    };
    let (served, left) = runtime.block_on(async {
        match start(flags, config, log.clone()).await {
            Ok((server, handle)) => {
                let served = server.serve().await;
                (served.map_err(Into::into), handle.drain_left())
            }
            Err(error) => (Err(error), Duration::ZERO),
        }
    });
    log.tell_left_out();
    // A call that hangs, as on a disk that does, must not keep the process.
    runtime.shutdown_timeout(HANGING.min(left));
    match served {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, FAILURE),
    }
}

async fn start(
    flags: Flags,
    config: Config,
    log: LogHandle,
) -> Result<(SignalServer, ServerHandle), Box<dyn Error>> {
    let signals = Signals::catch()?;
    tokio::spawn(log.clone().keep_telling());
    // Before it starts: it serves no more than the limit allows.
    make_room_for(config.signal.max_sockets);
    let server = SignalServer::builder().config(config).bind().await?;
    let handle = server.handle();
    tokio::spawn(signals.obey(flags, handle.clone(), log));
    tokio::spawn(systemd::keep_informed(handle.clone()));
    Ok((server, handle))
}

/// Raises the limit of open files as far as the system allows.
fn make_room_for(sockets: u32) {
    let wanted = u64::from(sockets) + FILES_BESIDE_SOCKETS;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    if limit < wanted {
        tracing::warn!(
            "this process may open {limit} files, but signal.max_sockets = {sockets} takes {wanted}; \
             raise the limit (LimitNOFILE in systemd) or lower the setting"
        );
    }
}

/// The signals that the process takes, caught before anybody can know that it listens.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// SIGHUP reads the configuration again. The first SIGTERM or SIGINT drains, the second ends the process at once.
    async fn obey(mut self, flags: Flags, server: ServerHandle, log: LogHandle) {
        let mut stopping = false;
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => {
                    systemd::while_reloading(|| reload(&flags, &server, &log));
                    continue;
                }
            };
            if stopping {
                tracing::warn!("{name} received again, ending at once");
                std::process::exit(FAILURE.into());
            }
            tracing::info!("{name} received, stopping");
            stopping = true;
            systemd::stopping();
            server.shutdown();
        }
    }
}

/// Puts the configuration in place as it is now; a broken one changes nothing.
fn reload(flags: &Flags, server: &ServerHandle, log: &LogHandle) {
    let config = match flags.config() {
        Ok(config) => config,
        Err(error) => {
            for line in error.to_string().lines() {
                tracing::error!("the configuration was not reloaded: {line}");
            }
            return;
        }
    };
    log.set_level(&config.log.level);
    let after_restart = server.reload(config);
    tracing::info!("configuration reloaded");
    if !after_restart.is_empty() {
        tracing::warn!(
            "these settings changed, but take effect only after a restart: {}",
            after_restart.join(", ")
        );
    }
}
