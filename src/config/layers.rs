//! Lays a TOML file, the environment and flags over the defaults and checks the whole.

use std::collections::HashMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, ConfigError, error::Origin, nearest::unknown, setting::Setting, settings::SETTINGS};

/// A configuration in the making: later layers win over earlier ones.
#[derive(Default)]
pub struct Layers {
    config: Config,
    origins: HashMap<&'static str, Origin>,
    errors: Vec<ConfigError>,
}

impl Layers {
    /// Lays the TOML in `text` over what is there; `name` names the file in errors.
    pub fn toml(mut self, name: &str, text: &str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.wrong(Origin::at(name, text, offset), format!("this is not TOML: {}", error.message()));
        }
        if errors.is_empty() {
            self.table(&File { name, text }, "", table.get_ref());
        }
        self.errors.sort_by_key(|error| error.origin.place());
        self
    }

    /// Lays the variables that name a setting over what is there; an empty variable counts as not set.
    pub fn env(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        for setting in SETTINGS {
            let name = setting.env();
            if let Some(text) = variable(&name).filter(|text| !text.is_empty()) {
                self.text(setting, &text, Origin::Env(name));
            }
        }
        self
    }

    /// Sets `key` as the flag `flag` says.
    pub fn flag(mut self, flag: &str, key: &str, text: &str) -> Self {
        let origin = Origin::Flag(flag.into());
        match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => self.text(setting, text, origin),
            None => self.wrong(origin, unknown(key, known_keys())),
        }
        self
    }

    /// The configuration, or everything that is wrong with it.
    pub fn finish(mut self) -> Result<Config, Vec<ConfigError>> {
        if self.errors.is_empty() {
            self.check();
        }
        if self.errors.is_empty() { Ok(self.config) } else { Err(self.errors) }
    }

    /// The checks that take more than one setting.
    fn check(&mut self) {
        for (key, other, problem) in self.config.contradictions() {
            // Where the key has its default, the other one was set.
            let origin = self.origins.get(key).or_else(|| self.origins.get(other));
            let origin = origin.cloned().unwrap_or(Origin::Default);
            self.wrong(origin, format!("{key} {problem}"));
        }
    }

    fn table(&mut self, file: &File<'_>, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            self.entry(file, (section, name.get_ref()), name.span().start, value);
        }
    }

    fn entry(
        &mut self,
        file: &File<'_>,
        (section, name): (&str, &str),
        key_offset: usize,
        value: &Spanned<DeValue<'_>>,
    ) {
        let key = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let is_section = section.is_empty()
            && !name.is_empty()
            && SETTINGS.iter().any(|setting| setting.split().0 == name);
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.split() == (section, name)) {
            let origin = file.origin(value.span().start);
            match (setting.set_toml)(&mut self.config, value) {
                Ok(()) => drop(self.origins.insert(setting.key, origin)),
                Err(wrong) => {
                    let origin = wrong.offset.map_or(origin, |offset| file.origin(offset));
                    self.wrong(origin, format!("{key}: {}", wrong.problem));
                }
            }
        } else if let (true, DeValue::Table(inner)) = (is_section, value.get_ref()) {
            self.table(file, name, inner);
        } else if is_section {
            self.wrong(
                file.origin(value.span().start),
                format!("{key}: expected a table, written as [{key}]"),
            );
        } else {
            self.wrong(file.origin(key_offset), unknown(&key, known_keys()));
        }
    }

    fn text(&mut self, setting: &'static Setting<Config>, text: &str, origin: Origin) {
        match (setting.set_text)(&mut self.config, text) {
            Ok(()) => drop(self.origins.insert(setting.key, origin)),
            Err(problem) => self.wrong(origin, format!("{}: {problem}", setting.key)),
        }
    }

    fn wrong(&mut self, origin: Origin, problem: String) {
        self.errors.push(ConfigError { origin, problem });
    }
}

struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, offset: usize) -> Origin {
        Origin::at(self.name, self.text, offset)
    }
}

fn known_keys() -> impl Iterator<Item = &'static str> {
    let sections = SETTINGS.iter().map(|setting| setting.split().0).filter(|section| !section.is_empty());
    SETTINGS.iter().map(|setting| setting.key).chain(sections)
}
