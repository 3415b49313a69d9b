use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// Python's `datetime.now().strftime(format)`, in the C locale: local time, or UTC where the zone is unknown.
pub(super) fn strftime_now(format: &str) -> String {
    strftime(format, &ZonedDateTime::now())
}

/// The present moment, ISO 8601 in UTC.
pub(crate) fn now() -> String {
    strftime("%Y-%m-%dT%H:%M:%SZ", &Timestamp::now().to_zoned_datetime(TimeZone::UTC))
}

/// Codes of numbers, whose padding flags set, and codes of names, whose case flags set.
const NUMBERS: &str = "CYydegGHIjklMmSsUuVWw";
const NAMES: &str = "aAbBhpP";

/// Codes of texts that flags do not change.
const OTHERS: &str = "DFnRrTtXx%";

/// Formats a time as Python does with glibc; an unknown code is unchanged.
fn strftime(format: &str, time: &ZonedDateTime) -> String {
    let mut codes = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        codes.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let unflagged = rest.trim_start_matches(['-', '_', '0', '^', '#']);
        let flags = &rest[..rest.len() - unflagged.len()];
        let plain = unflagged.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let width = &unflagged[..unflagged.len() - plain.len()];
        let Some(code) = plain.chars().next() else {
            codes.push_str("%%");
            continue;
        };
        rest = &plain[code.len_utf8()..];
        push(&mut codes, flags, width, code);
    }
    codes.push_str(rest);
    // lenient: the code of an unavailable field is unchanged
    let config = Config::new().custom(PosixCustom::new()).lenient(true);
    BrokenDownTime::from(time).to_string_with_config(&config, &codes).unwrap_or_else(|_| format.to_owned())
}

/// Adds a code in jiff's syntax, which takes one flag and has codes that Python lacks.
fn push(codes: &mut String, flags: &str, width: &str, code: char) {
    let flag = match code {
        // empty, as `datetime.now()` has no time zone
        'z' | 'Z' => return,
        'f' if flags.is_empty() && width.is_empty() => Some('6'),
        'c' => flags.chars().find(|flag| *flag == '^'),
        _ if NUMBERS.contains(code) => flags.chars().rfind(|flag| matches!(flag, '-' | '_' | '0')),
        'p' if flags.contains('#') => Some('#'),
        'P' => None,
        _ if NAMES.contains(code) => flags.contains(['^', '#']).then_some('^'),
        _ if OTHERS.contains(code) => None,
        _ => {
            codes.extend(["%%", flags, width, code.encode_utf8(&mut [0; 4])]);
            return;
        }
    };
    codes.push('%');
    codes.extend(flag);
    // only numbers are padded
    codes.push_str(if NUMBERS.contains(code) { width } else { "" });
    codes.push(code);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time zone of Berlin as a POSIX rule, which needs no database.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn at(format: &str, seconds: i64, zone: &str) -> String {
        let zone = TimeZone::posix(zone).unwrap();
        strftime(format, &Timestamp::new(seconds, 42_999).unwrap().to_zoned_datetime(zone))
    }

    fn utc(format: &str, seconds: i64) -> String {
        at(format, seconds, "UTC0")
    }

    #[test]
    fn dates() {
        assert_eq!(utc("%A %d %B %Y %H:%M:%S %j%", 0), "Thursday 01 January 1970 00:00:00 001%");
        assert_eq!(utc("%a %-d %b %y %I:%M %p %% %e %k %l %P", 1_709_210_096), "Thu 29 Feb 24 12:34 PM % 29 12 12 pm");
        assert_eq!(utc("%F %T", 4_102_444_799), "2099-12-31 23:59:59");
        assert_eq!(
            utc("%c|%x|%X|%D|%R|%r|%n|%t|%s|%f|%z|%Z", 1_709_210_096),
            "Thu Feb 29 12:34:56 2024|02/29/24|12:34:56|02/29/24|12:34|12:34:56 PM|\n|\t|1709210096|000042||"
        );
        assert_eq!(utc("%-m/%-d %_m %^a %^B %C %h %E %Q", 1_709_210_096), "2/29  2 THU FEBRUARY 20 Feb %E %Q");
        assert_eq!(utc("%02d|%3H|%_5m|%5|%3", 1_709_210_096), "29|012|    2|%5|%3");
        assert_eq!(
            utc("%-e|%0e|%_-0m|%#b|%#p|%^P|%^c|%-f|%q|%N|%é|%%Y", 1_709_210_096),
            "29|29|02|FEB|pm|pm|THU FEB 29 12:34:56 2024|%-f|%q|%N|%é|%Y"
        );
    }

    #[test]
    fn time_is_local() {
        assert_eq!(at("%F %H:%M %s%z", 1_709_210_096, BERLIN), "2024-02-29 13:34 1709210096");
        assert_eq!(at("%d %b %Y %H", 1_719_784_800, BERLIN), "01 Jul 2024 00");
        assert_eq!(at("%d %b %Y %-I%p", 1_719_784_800, "EST5EDT,M3.2.0,M11.1.0"), "30 Jun 2024 6PM");
    }

    /// Weeks at the turns of years, by Python's `datetime`.
    #[test]
    fn weeks() {
        for (day, wanted) in [
            (18_262, "2020-01-01 001 3 3 00 00 01 2020"),
            (18_627, "2020-12-31 366 4 4 52 52 53 2020"),
            (18_628, "2021-01-01 001 5 5 00 00 53 2020"),
            (18_631, "2021-01-04 004 1 1 01 01 01 2021"),
            (19_358, "2023-01-01 001 0 7 01 00 52 2022"),
            (19_722, "2023-12-31 365 0 7 53 52 52 2023"),
            (20_087, "2024-12-30 365 1 1 52 53 01 2025"),
        ] {
            assert_eq!(utc("%F %j %w %u %U %W %V %G", day * 86_400), wanted);
        }
    }
}
