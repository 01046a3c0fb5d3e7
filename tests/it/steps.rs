//! `tests/run` takes the names of its steps, each as an argument of its own, and nothing else.

use std::process::Command;

#[test]
fn what_is_no_step_is_refused_before_anything_runs() {
    for arguments in [
        &["bogus"][..],
        &["format lints"],
        &["format", "lints docs"],
        &["format\nlints"],
        &["format "],
        &["form*"],
        &[".*"],
        &[""],
        &["run"],
        &["format", "--list"],
    ] {
        let output = Command::new("tests/run")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            // Nothing that a step needs is found.
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        let wrong = arguments.last().unwrap();
        let refused =
            format!("tests/run: there is no check named {wrong:?}; the checks are: format lints docs ");
        let says =
            String::from_utf8(output.stderr).unwrap().replace("\"format\nlints\"", "\"format\\nlints\"");
        assert!(output.status.code() == Some(2) && says.starts_with(&refused), "{arguments:?}: {says}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
