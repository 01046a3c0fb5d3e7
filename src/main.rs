//! Starts the process: command line, log, server, signals, exit code.

mod cli;

use std::{fmt::Display, process::ExitCode};

use clap::Parser;
use gemmapod_signal::{Config, ServerHandle, SignalServer, authority_pem, config::TlsMode, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::cli::{Cli, Command, UsageError};

/// Wrong flags and wrong configuration.
const USAGE: u8 = 2;
/// Failures at run time.
const FAILURE: u8 = 1;

/// Open files for HTTP connections, uploads and the registry.
const FILES_BESIDE_SOCKETS: u64 = 2000;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::CheckConfig { file }) => match cli::check_config(file) {
            Ok(()) => {
                println!("{} is right", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error, USAGE),
        },
        Some(Command::Settings { markdown }) => {
            print!("{}", if *markdown { cli::settings_markdown() } else { cli::settings_toml() });
            ExitCode::SUCCESS
        }
        Some(Command::Ca { flags }) => match flags.config() {
            Ok(config) if config.tls_mode() != TlsMode::SelfSigned => {
                complain(&UsageError::NoAuthority, USAGE)
            }
            Ok(config) => print_authority(&config),
            Err(error) => complain(&error, USAGE),
        },
        None => match cli.flags.config() {
            Ok(config) => run(config),
            Err(error) => complain(&error, USAGE),
        },
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
        Err(error) => complain(&error, FAILURE),
    }
}

fn run(config: Config) -> ExitCode {
    telemetry::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, FAILURE),
    };
    match runtime.block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, FAILURE),
    }
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let max_sockets = config.signal.max_sockets;
    let server = SignalServer::builder().config(config).bind().await?;
    make_room_for(max_sockets);
    tokio::spawn(stop_on(signals, server.handle()));
    server.serve().await?;
    tracing::info!("stopped");
    Ok(())
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

/// The first SIGTERM or SIGINT drains, the second ends the process at once.
async fn stop_on([mut terminate, mut interrupt]: [Signal; 2], server: ServerHandle) {
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    tracing::info!("{} received, stopping", next().await);
    server.shutdown();
    tracing::warn!("{} received again, ending at once", next().await);
    std::process::exit(FAILURE.into());
}
