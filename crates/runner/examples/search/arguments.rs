//! Arguments of a program: options with a value each, in any order.

use phi3_runner::{Error, Result};

/// Arguments that were not taken yet.
pub(crate) struct Arguments {
    rest: Vec<String>,
}

impl Arguments {
    /// The arguments of this program.
    pub(crate) fn of_program() -> Result<Self> {
        let mut rest = Vec::new();
        for argument in std::env::args_os().skip(1) {
            rest.push(argument.into_string().map_err(|found| wrong("arguments", "UTF-8", &format!("{found:?}")))?);
        }
        Ok(Self { rest })
    }

    /// Takes an option without a value; whether it is there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let at = self.rest.iter().position(|argument| argument == name);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    /// Takes an option with its value, if it is there.
    pub(crate) fn value(&mut self, name: &'static str) -> Result<Option<String>> {
        let Some(at) = self.rest.iter().position(|argument| argument == name) else { return Ok(None) };
        if at + 1 == self.rest.len() {
            return Err(wrong(name, "a value after it", "nothing"));
        }
        self.rest.remove(at);
        Ok(Some(self.rest.remove(at)))
    }

    /// Takes an option whose value is a number of at least 1, if it is there.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        match value.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(wrong(name, "a number of at least 1", &value)),
        }
    }

    /// Checks that all arguments were taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(argument) => Err(wrong("arguments", "the options that --help lists", argument)),
        }
    }
}

fn wrong(argument: &'static str, expected: &str, found: &str) -> Error {
    Error::Argument { argument, expected: expected.into(), found: found.into() }
}

#[cfg(test)]
impl Arguments {
    pub(crate) fn of(words: &[&str]) -> Self {
        Self { rest: words.iter().map(|word| (*word).to_owned()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &str) -> Arguments {
        Arguments::of(&words.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn options_in_any_order() {
        let mut given = arguments("--count 3 --question one --quiet --question two");
        assert_eq!(given.value("--question").unwrap().as_deref(), Some("one"));
        assert_eq!(given.value("--question").unwrap().as_deref(), Some("two"));
        assert_eq!(given.value("--question").unwrap(), None);
        assert!(given.flag("--quiet") && !given.flag("--quiet"));
        assert_eq!(given.number("--count").unwrap(), Some(3));
        given.finish().unwrap();
    }

    #[test]
    fn mistakes_are_errors() {
        let error = arguments("--model").value("--model").unwrap_err().to_string();
        assert!(error.contains("--model") && error.contains("a value"), "{error}");
        for value in ["0", "-1", "many"] {
            assert!(arguments(&format!("--count {value}")).number("--count").is_err());
        }
        let error = arguments("--modle x").finish().unwrap_err().to_string();
        assert!(error.contains("--modle"), "{error}");
    }
}
