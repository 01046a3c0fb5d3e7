//! Tests against a broker as a whole, in this process or as one of its own. They are one binary, because each binary links
//! the whole stack again; those that need a process of their own stand beside this folder.

mod cli;
mod connections;
mod crowds;
mod damaged_blobs;
mod disk_full;
mod documents;
mod examples;
mod http;
mod imports;
mod isolation;
mod janitor;
mod limits;
mod listeners;
mod opening;
mod ownership;
mod pods;
mod quotas;
mod reference;
mod registry;
mod signalling;
mod steps;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod whole_files;
mod wrong_values;
