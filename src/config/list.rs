//! Settings that are lists: of plain values, or of tables such as `[[listen]]`.

use std::ops::Deref;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    kind::ValueKind,
    nearest::unknown,
    setting::{Setting, describe as describe_setting},
    value::{Value, ValueError, describe},
};

/// A list of plain values: a TOML array, as text too, or text with commas between the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Value> Value for List<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const KIND: ValueKind = ValueKind::List(&T::KIND);

    fn from_text(text: &str) -> Result<Self, String> {
        // An IPv6 address in brackets is no TOML.
        if text.starts_with('[')
            && let Ok(array) = DeValue::parse(text)
        {
            return Self::from_toml(&array).map_err(|wrong| wrong.problem);
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self(parts.map(T::from_text).collect::<Result<_, _>>()?))
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        let array = value.get_ref().as_array().ok_or_else(|| {
            ValueError::from(format!(
                "expected a list of values, each {}, found {}",
                T::EXPECTED,
                describe(value.get_ref())
            ))
        })?;
        let read =
            |item: &Spanned<DeValue<'_>>| T::from_toml(item).map_err(|wrong| wrong.at(item.span().start));
        Ok(Self(array.iter().map(read).collect::<Result<_, _>>()?))
    }

    fn to_toml(&self) -> Option<String> {
        let items: Vec<_> = self.0.iter().filter_map(Value::to_toml).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A table that may stand several times, such as `[[listen]]`.
pub trait Entry: Default + 'static {
    /// The name of the list that it stands in.
    const NAME: &'static str;
    /// Its keys.
    const SETTINGS: &'static [Setting<Self>];

    /// What is wrong with it as a whole: the key that is to blame and a sentence.
    fn check(&self) -> Result<(), String>;
}

impl<E: Entry> Value for Vec<E> {
    const EXPECTED: &'static str = "a list of tables";
    const KIND: ValueKind = ValueKind::Tables(|| E::SETTINGS.iter().map(describe_setting).collect());

    /// As TOML writes the list on one line.
    fn from_text(text: &str) -> Result<Self, String> {
        let value =
            DeValue::parse(text).map_err(|error| format!("this is not a TOML list: {}", error.message()))?;
        Self::from_toml(&value).map_err(|wrong| wrong.problem)
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        let tables = || ValueError::from(format!("expected tables, written as [[{}]]", E::NAME));
        let array = value.get_ref().as_array().ok_or_else(tables)?;
        let read = |item: &Spanned<DeValue<'_>>| {
            let table = item.get_ref().as_table().ok_or_else(|| tables().at(item.span().start))?;
            entry(table).map_err(|wrong| wrong.at(item.span().start))
        };
        array.iter().map(read).collect()
    }

    fn to_toml(&self) -> Option<String> {
        let pair = |entry: &E, setting: &Setting<E>| {
            Some(format!("{} = {}", setting.key, (setting.to_toml)(entry)?))
        };
        let table = |entry: &E| {
            let pairs: Vec<_> = E::SETTINGS.iter().filter_map(|setting| pair(entry, setting)).collect();
            format!("{{ {} }}", pairs.join(", "))
        };
        let tables: Vec<_> = self.iter().map(table).collect();
        (!tables.is_empty()).then(|| format!("[{}]", tables.join(", ")))
    }
}

fn entry<E: Entry>(table: &DeTable<'_>) -> Result<E, ValueError> {
    let mut entry = E::default();
    for (key, value) in table {
        let setting = E::SETTINGS.iter().find(|setting| setting.key == key.get_ref());
        let Some(setting) = setting else {
            let known = E::SETTINGS.iter().map(|setting| setting.key);
            return Err(ValueError::from(unknown(key.get_ref(), known)).at(key.span().start));
        };
        (setting.set_toml)(&mut entry, value).map_err(|wrong| ValueError {
            problem: format!("{}: {}", setting.key, wrong.problem),
            ..wrong.at(value.span().start)
        })?;
    }
    entry.check()?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenAddress;

    #[test]
    fn a_list_in_text_has_commas_or_is_toml() {
        let of = |text: &str| {
            List::<ListenAddress>::from_text(text)
                .map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let both = Ok(vec!["[::]:80".to_owned(), "0.0.0.0:443".to_owned()]);
        assert_eq!(of("[::]:80,0.0.0.0:443"), both);
        assert_eq!(of(r#"["[::]:80", "0.0.0.0:443"]"#), both);
        assert_eq!(of("[]"), Ok(vec![]));
        assert!(of("[80]").is_err());
    }
}
