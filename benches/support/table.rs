//! One row for each kind of work: a median for each server, and what matters, the ratios.

use super::contender::{Contender, Kind};

pub struct Table {
    kinds: Vec<Kind>,
}

impl Table {
    /// Prints the head.
    pub fn new(contenders: &[Contender]) -> Self {
        let kinds: Vec<_> = contenders.iter().map(|contender| contender.kind).collect();
        print!("{:<44}", "");
        for kind in &kinds {
            print!("{:>11}", kind.name());
        }
        for kind in &kinds[1..] {
            print!("{:>14}", format!("/ {}", kind.name()));
        }
        println!();
        Self { kinds }
    }

    /// Prints the medians of what was measured; what was not measured is a dash.
    pub fn row(&self, what: &str, unit: &str, figures: &mut [Vec<f64>]) {
        let figures: Vec<_> = figures.iter_mut().map(|figures| median(figures)).collect();
        print!("{:<44}", format!("{what}, {unit}"));
        for figure in &figures {
            print!("{:>11}", figure.map_or("-".into(), |figure| format!("{figure:.*}", decimals(figure))));
        }
        for figure in &figures[1..self.kinds.len()] {
            let ratio = figures[0].zip(*figure).map(|(broker, other)| broker / other);
            print!("{:>14}", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")));
        }
        println!();
    }
}

fn decimals(figure: f64) -> usize {
    match figure {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    }
}

pub fn median(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}
