//! What the benches share: servers to be compared, what they cost, and the table.
#![allow(dead_code, reason = "each bench uses its own part of it")]

pub mod contender;
pub mod server;
pub mod table;

use self::table::Table;

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

/// Measures one thing or several `rounds` times on each of `contenders`, in turn; prints a row of medians for each.
/// `None` stands where a contender takes no part.
pub async fn compare<T, const N: usize>(
    table: &Table,
    rows: [(&str, &str); N],
    rounds: usize,
    contenders: &[Option<T>],
    measure: impl AsyncFn(&T) -> [f64; N],
) {
    let mut figures = [(); N].map(|()| vec![Vec::new(); contenders.len()]);
    for _ in 0..rounds {
        for (index, contender) in contenders.iter().enumerate() {
            let Some(contender) = contender else { continue };
            for (figures, figure) in figures.iter_mut().zip(measure(contender).await) {
                figures[index].push(figure);
            }
        }
    }
    for ((what, unit), figures) in rows.into_iter().zip(&mut figures) {
        table.row(what, unit, figures);
    }
}
