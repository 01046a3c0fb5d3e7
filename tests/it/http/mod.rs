//! HTTP itself, over both of its versions: methods, paths, conditions, and the heads of errors.

mod client;
mod conditions;
mod errors;
mod heads;
mod methods;
mod paths;
