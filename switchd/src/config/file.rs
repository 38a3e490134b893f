//! The TOML file, read with the place of every key and value.
//!
//! The text is parsed once into a tree with spans. The tree is walked by the tables of [`super::keys`], so
//! unknown keys and wrong types are all found; an object with such a fault is *spoiled*: it stands in the
//! result so that references to it hold, but what [`super::validate`] says about it is not repeated.

use super::keys::{Entries, Key, Spec, Type, Value};
use super::problem::{Problem, nearest, one_of};
use super::report::{Label, Report};
use super::validate::{validate, validate_change};
use super::{MAX_PROBLEMS, MAX_TEXT, syntax};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use switchd_api::model::{BondSpec, Desired, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::name::Name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads and validates. `file` is the name shown in the report; `capture_dir` as for [`super::validate`].
pub fn parse_toml(text: &str, file: &str, capture_dir: &Path) -> Result<Desired, Report> {
    read(None, text, file, capture_dir)
}

/// The same of a file that is to follow `before`, as [`super::validate_change`] does it.
pub fn parse_toml_over(
    before: &Desired,
    text: &str,
    file: &str,
    capture_dir: &Path,
) -> Result<Desired, Report> {
    read(Some(before), text, file, capture_dir)
}

fn read(before: Option<&Desired>, text: &str, file: &str, capture_dir: &Path) -> Result<Desired, Report> {
    if text.len() > MAX_TEXT {
        let rule = format!("a configuration has at most {MAX_TEXT} bytes, this one has {}", text.len());
        return Err(Report::new(file, "", vec![(Problem::new(&[], rule), Vec::new())], 0));
    }
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(first) => return Err(syntax::report(file, text, first)),
    };
    let mut reader = Reader::default();
    let desired = reader.document(table.get_ref());
    let mut problems = std::mem::take(&mut reader.problems);
    let validated = match before {
        _ if reader.blind => Ok(Default::default()),
        Some(before) => validate_change(before, &desired, capture_dir),
        None => validate(&desired, capture_dir),
    };
    if let Err(further) = validated {
        problems.extend(further.into_iter().filter(|problem| !reader.concerns_spoiled(problem)));
    }
    if problems.is_empty() {
        return Ok(desired);
    }
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    let labelled = problems.into_iter().map(|problem| {
        let labels = reader.labels(&problem);
        (problem, labels)
    });
    Err(Report::new(file, text, labelled.collect(), more))
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    /// Path → places of key and value.
    places: BTreeMap<Vec<String>, (Range<usize>, Range<usize>)>,
    spoiled: BTreeSet<(String, String)>,
    /// So much is missing that rules between objects would only mislead.
    blind: bool,
}

impl Reader {
    fn document(&mut self, table: &DeTable<'_>) -> Desired {
        let mut desired = Desired::default();
        for (key, value) in table {
            let word: &str = key.get_ref();
            self.note(&[word], key.span(), value.span());
            match word {
                "network" => desired.network = self.section::<NetworkSpec>(value),
                "bond" => desired.bond = self.section::<BondSpec>(value),
                "port" => desired.port = self.section::<PortSpec>(value),
                "mirror" => desired.mirror = self.section::<MirrorSpec>(value),
                _ => {
                    let sections = ["network", "bond", "port", "mirror"];
                    let help = match nearest(word, sections) {
                        Some(meant) => format!("did you mean {meant}?"),
                        None => format!(
                            "a file has {}",
                            one_of(
                                &sections.map(|name| format!("[{name}.NAME]")).each_ref().map(String::as_str)
                            )
                        ),
                    };
                    self.problems.push(Problem::new(&[word], "unknown key").help(help));
                    self.blind = true;
                }
            }
        }
        desired
    }

    fn section<T: Spec>(&mut self, value: &Spanned<DeValue<'_>>) -> BTreeMap<Name, T> {
        let mut objects = BTreeMap::new();
        let Some(table) = value.get_ref().as_table() else {
            let rule = format!("expected tables like [{}.NAME], found {}", T::SECTION, kind(value.get_ref()));
            self.problems.push(Problem::new(&[T::SECTION], rule));
            self.blind = true;
            return objects;
        };
        for (key, value) in table {
            let word: &str = key.get_ref();
            self.note(&[T::SECTION, word], key.span(), value.span());
            let Ok(name) = word.parse::<Name>() else {
                self.problems.push(
                    Problem::new(&[T::SECTION, word], "not a usable name")
                        .help("1 to 32 characters of a-z 0-9 . _ -, beginning with a letter or a digit"),
                );
                self.blind = true;
                continue;
            };
            let before = self.problems.len();
            let object = self.object::<T>(&name, value.get_ref());
            if self.problems.len() > before {
                self.spoiled.insert((T::SECTION.to_owned(), word.to_owned()));
            }
            objects.insert(name, object);
        }
        objects
    }

    fn object<T: Spec>(&mut self, name: &Name, value: &DeValue<'_>) -> T {
        let mut object = T::blank();
        let path = [T::SECTION, name.as_str()];
        let Some(table) = value.as_table() else {
            let rule = format!("expected a table [{}.{name}], found {}", T::SECTION, kind(value));
            self.problems.push(Problem::new(&path, rule));
            return object;
        };
        for (key, value) in table {
            let word: &str = key.get_ref();
            let path = [T::SECTION, name.as_str(), word];
            self.note(&path, key.span(), value.span());
            let Some(known) = T::key(word) else {
                let names = T::key_names();
                let meant = nearest(word, names.iter().copied());
                let help = match meant {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("the keys of a {} are {}", T::SECTION, one_of(&names)),
                };
                self.problems.push(Problem::new(&path, "unknown key").help(help));
                continue;
            };
            if let Some(value) = self.value(known, value.get_ref(), &path)
                && let Err(rule) = object.put(word, Some(value.clone()))
            {
                let problem = Problem::new(&path, rule);
                self.problems.push(match value {
                    Value::Text(text) => problem.text(&text),
                    _ => problem,
                });
            }
        }
        for key in T::KEYS.iter().filter(|key| key.required && !table.contains_key(key.name)) {
            let rule = format!("the key {} is missing", key.name);
            let problem = Problem::new(&path, rule);
            self.problems.push(match key.kind {
                Type::Choice(words) => problem.help(format!("it is {}", one_of(words))),
                _ => problem,
            });
        }
        object
    }

    /// `None`: a problem was noted.
    fn value(&mut self, key: &Key, value: &DeValue<'_>, path: &[&str]) -> Option<Value> {
        let wrong =
            |expected: &str| Problem::new(path, format!("expected {expected}, found {}", kind(value)));
        let result = match key.kind {
            Type::Text => {
                value.as_str().map(|text| Value::Text(text.to_owned())).ok_or_else(|| wrong("text in quotes"))
            }
            Type::Flag => value.as_bool().map(Value::Flag).ok_or_else(|| wrong("true or false")),
            Type::Choice(words) => match value.as_str() {
                Some(text) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
                Some(text) => {
                    let problem = Problem::new(path, format!("expected {}", one_of(words))).text(text);
                    Err(match nearest(text, words.iter().copied()) {
                        Some(meant) => problem.help(format!("did you mean {meant:?}?")),
                        None => problem,
                    })
                }
                None => Err(wrong(&one_of(
                    &words
                        .iter()
                        .map(|word| format!("{word:?}"))
                        .collect::<Vec<_>>()
                        .iter()
                        .map(String::as_str)
                        .collect::<Vec<_>>(),
                ))),
            },
            Type::Number(rule) | Type::Seconds(rule) => match value.as_integer() {
                Some(number) => i128::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .and_then(|number| u64::try_from(number).ok())
                    .filter(|number| (rule.min..=rule.max).contains(number))
                    .map(Value::Number)
                    .ok_or_else(|| {
                        let shown: String = number.as_str().chars().take(40).collect();
                        Problem::new(path, rule.sentence()).number(shown)
                    }),
                None => Err(wrong("a whole number")),
            },
            Type::List => match value.as_array() {
                Some(array) => return self.list(array, path).map(Value::List),
                None => Err(wrong("a list of texts, as in [\"port:vm1\"]").help("put it into [ ]")),
            },
            Type::Map(entries) => match value.as_table() {
                Some(table) => return self.map(table, path, entries).map(Value::Map),
                None => Err(wrong(&format!("a table of {}", entries.form))),
            },
        };
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn list(&mut self, array: &toml::de::DeArray<'_>, path: &[&str]) -> Option<Vec<String>> {
        let mut list = Vec::new();
        let mut whole = true;
        for (index, value) in array.iter().enumerate() {
            let index = index.to_string();
            let path = [path, &[index.as_str()]].concat();
            self.note(&path, value.span(), value.span());
            match value.get_ref().as_str() {
                Some(text) => list.push(text.to_owned()),
                None => {
                    let rule = format!("expected text in quotes, found {}", kind(value.get_ref()));
                    self.problems.push(Problem::new(&path, rule));
                    whole = false;
                }
            }
        }
        whole.then_some(list)
    }

    fn map(
        &mut self,
        table: &DeTable<'_>,
        path: &[&str],
        entries: &Entries,
    ) -> Option<BTreeMap<String, String>> {
        let mut map = BTreeMap::new();
        let mut whole = true;
        for (key, value) in table {
            let word: &str = key.get_ref();
            let path = [path, &[word]].concat();
            self.note(&path, key.span(), value.span());
            match value.get_ref().as_str() {
                Some(text) => {
                    map.insert(word.to_owned(), text.to_owned());
                }
                None => {
                    let rule =
                        format!("expected {} in quotes, found {}", entries.value, kind(value.get_ref()));
                    self.problems.push(Problem::new(&path, rule));
                    whole = false;
                }
            }
        }
        whole.then_some(map)
    }

    fn note(&mut self, path: &[&str], key: Range<usize>, value: Range<usize>) {
        self.places.insert(path.iter().map(|&part| part.to_owned()).collect(), (key, value));
    }

    fn concerns_spoiled(&self, problem: &Problem) -> bool {
        let spoiled =
            |path: &[String]| path.len() >= 2 && self.spoiled.contains(&(path[0].clone(), path[1].clone()));
        spoiled(&problem.path) || problem.also.as_deref().is_some_and(spoiled)
    }

    fn labels(&self, problem: &Problem) -> Vec<Label> {
        let at_value = problem.value.is_some() && problem.path.len() > 2;
        let first = self.place(&problem.path, at_value).map(|span| Label { span, text: "here" });
        let second = problem.also.as_deref().and_then(|path| self.place(path, true));
        let second = second.map(|span| Label { span, text: "the other one" });
        first.into_iter().chain(second).collect()
    }

    /// Of the key or value, or of the nearest thing around it that the file has.
    fn place(&self, path: &[String], at_value: bool) -> Option<Range<usize>> {
        let (key, value) = self.places.get(path).cloned().or_else(|| {
            let (_, around) = path.split_last()?;
            self.place(around, false).map(|span| (span.clone(), span))
        })?;
        Some(if at_value { value } else { key })
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
