//! Writes a signed pod with so many bytes of padding to standard output.

#[path = "../support/pod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod pod;

fn main() {
    let padding = std::env::args().nth(1).and_then(|bytes| bytes.parse().ok()).expect("a number of bytes");
    print!("{}", pod::Pod::named("slow").padded(padding).html());
}
