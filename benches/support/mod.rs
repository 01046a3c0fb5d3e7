//! What the benches share: servers to be compared, what they cost, and the table.
#![allow(dead_code, reason = "each bench uses its own part of it")]

pub mod contender;
pub mod server;
pub mod table;

use std::future::Future;

use self::{server::Server, table::Table};

/// Whether the program shall measure: `cargo bench` says so, `cargo test --all-targets` does not.
pub fn wanted() -> bool {
    let wanted = std::env::args().any(|arg| arg == "--bench");
    if !wanted {
        println!("nothing is measured without --bench");
    }
    wanted
}

/// The value of an option of the bench itself, such as `--before PATH`.
pub fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

/// Measures something `rounds` times on each of `servers`, in turn, and prints the median of each.
pub async fn compare<'a, F>(
    table: &Table,
    (what, unit): (&str, &str),
    rounds: usize,
    servers: &'a [Option<Server>],
    measure: impl Fn(&'a Server) -> F,
) where
    F: Future<Output = f64>,
{
    let mut figures = vec![Vec::new(); servers.len()];
    for _ in 0..rounds {
        for (server, figures) in servers.iter().zip(&mut figures) {
            if let Some(server) = server {
                figures.push(measure(server).await);
            }
        }
    }
    table.row(what, unit, &mut figures);
}
