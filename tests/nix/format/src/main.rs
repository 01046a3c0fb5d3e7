//! Says which of the Nix files that are named alejandra would change; exits with 1 if there are any.

use std::{env, process::ExitCode};

use alejandra::format::{Status, in_fs};

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in env::args().skip(1) {
        let problem = match in_fs(file.clone(), false) {
            Status::Changed(false) => continue,
            Status::Changed(true) => "is not formatted: run alejandra".into(),
            Status::Error(problem) => problem,
        };
        println!("{file}: {problem}");
        code = ExitCode::FAILURE;
    }
    code
}
