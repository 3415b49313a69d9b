use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Python's `datetime.now().strftime(format)`, in UTC and in the C locale.
pub(super) fn strftime_now(format: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(format, now.as_secs(), now.subsec_micros())
}

/// The present moment, ISO 8601 in UTC.
pub(crate) fn now() -> String {
    strftime_now("%Y-%m-%dT%H:%M:%SZ")
}

/// A moment by the Gregorian calendar.
struct Moment {
    seconds: u64,
    year: u64,
    month: u64,
    day: u64,
    /// From 0, Sunday.
    weekday: u64,
    /// From 0.
    year_day: u64,
}

impl Moment {
    fn of(seconds: u64) -> Self {
        let days = seconds / 86400;
        let (year, month, day) = civil(days);
        let year_day = (1..month).map(|month| month_length(year, month)).sum::<u64>() + day - 1;
        Self { seconds, year, month, day, weekday: (days + 4) % 7, year_day }
    }

    /// Weeks of the year that begin with a weekday, counted from the first such day.
    fn week(&self, first: u64) -> u64 {
        (self.year_day + 7 - (self.weekday + 7 - first) % 7) / 7
    }

    /// Year and week by ISO 8601: weeks begin on Monday, the first has the year's first Thursday.
    fn iso_week(&self) -> (u64, u64) {
        let monday_based = (self.weekday + 6) % 7;
        // the Thursday of this week, counted from the first of January
        let thursday = self.year_day as i64 + 3 - monday_based as i64;
        let length = |year| if is_leap(year) { 366 } else { 365 };
        if thursday < 0 {
            let year = self.year - 1;
            return (year, ((thursday + length(year)) / 7 + 1) as u64);
        }
        match thursday - length(self.year) {
            over if over >= 0 => (self.year + 1, (over / 7 + 1) as u64),
            _ => (self.year, (thursday / 7 + 1) as u64),
        }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// What glibc's `strftime` makes of a format; Python gives what it does not know as it is.
fn strftime(format: &str, seconds: u64, micros: u32) -> String {
    let moment = Moment::of(seconds);
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let unflagged = rest.trim_start_matches(['-', '_', '0', '^', '#']);
        let flags = &rest[..rest.len() - unflagged.len()];
        let Some(code) = unflagged.chars().next() else {
            out.push('%');
            break;
        };
        rest = &unflagged[code.len_utf8()..];
        match field(&moment, code, micros) {
            Some(field) => out.push_str(&field.padded(flags)),
            None => out.extend(["%", flags, code.encode_utf8(&mut [0; 4])]),
        }
    }
    out + rest
}

/// A number with the width and the character that fill it up, or a text.
enum Field {
    Number(u64, usize, char),
    Text(String),
}

impl Field {
    fn padded(self, flags: &str) -> String {
        let text = match self {
            Self::Text(text) => text,
            Self::Number(number, width, fill) => {
                let last = flags.chars().rfind(|flag| ['-', '_', '0'].contains(flag));
                let fill = match last {
                    Some('-') => None,
                    Some('_') => Some(' '),
                    Some(_) => Some('0'),
                    None => Some(fill),
                };
                match fill {
                    None => number.to_string(),
                    Some(' ') => format!("{number:width$}"),
                    Some(_) => format!("{number:0width$}"),
                }
            }
        };
        if flags.contains('^') { text.to_uppercase() } else { text }
    }
}

fn field(moment: &Moment, code: char, micros: u32) -> Option<Field> {
    let seconds = moment.seconds;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let two = |number| Field::Number(number, 2, '0');
    let text = |text: &str| Field::Text(text.into());
    let all = |format: &str| Field::Text(strftime(format, seconds, micros));
    let month = MONTHS[moment.month as usize - 1];
    let weekday = DAYS[moment.weekday as usize];
    Some(match code {
        'Y' => Field::Number(moment.year, 1, '0'),
        'C' => two(moment.year / 100),
        'y' => two(moment.year % 100),
        'm' => two(moment.month),
        'd' => two(moment.day),
        'e' => Field::Number(moment.day, 2, ' '),
        'H' => two(hour),
        'k' => Field::Number(hour, 2, ' '),
        'I' => two((hour + 11) % 12 + 1),
        'l' => Field::Number((hour + 11) % 12 + 1, 2, ' '),
        'M' => two(minute),
        'S' => two(second),
        's' => Field::Number(seconds, 1, '0'),
        'f' => Field::Number(micros.into(), 6, '0'),
        'j' => Field::Number(moment.year_day + 1, 3, '0'),
        'w' => Field::Number(moment.weekday, 1, '0'),
        'u' => Field::Number((moment.weekday + 6) % 7 + 1, 1, '0'),
        'U' => two(moment.week(0)),
        'W' => two(moment.week(1)),
        'V' => two(moment.iso_week().1),
        'G' => Field::Number(moment.iso_week().0, 1, '0'),
        'g' => two(moment.iso_week().0 % 100),
        'p' => text(if hour < 12 { "AM" } else { "PM" }),
        'P' => text(if hour < 12 { "am" } else { "pm" }),
        'B' => text(month),
        'b' | 'h' => text(&month[..3]),
        'A' => text(weekday),
        'a' => text(&weekday[..3]),
        'F' => all("%Y-%m-%d"),
        'D' | 'x' => all("%m/%d/%y"),
        'T' | 'X' => all("%H:%M:%S"),
        'R' => all("%H:%M"),
        'r' => all("%I:%M:%S %p"),
        'c' => all("%a %b %e %H:%M:%S %Y"),
        'n' => text("\n"),
        't' => text("\t"),
        // a time without a zone, as `datetime.now()` gives
        'z' | 'Z' => text(""),
        '%' => text("%"),
        _ => return None,
    })
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years start in March here, so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(format: &str, seconds: u64) -> String {
        strftime(format, seconds, 42)
    }

    #[test]
    fn dates() {
        assert_eq!(at("%A %d %B %Y %H:%M:%S %j%", 0), "Thursday 01 January 1970 00:00:00 001%");
        assert_eq!(at("%a %-d %b %y %I:%M %p %% %e %k %l %P", 1_709_210_096), "Thu 29 Feb 24 12:34 PM % 29 12 12 pm");
        assert_eq!(at("%F %T", 4_102_444_799), "2099-12-31 23:59:59");
        assert_eq!(
            at("%c|%x|%X|%D|%R|%r|%n|%t|%s|%f|%z|%Z", 1_709_210_096),
            "Thu Feb 29 12:34:56 2024|02/29/24|12:34:56|02/29/24|12:34|12:34:56 PM|\n|\t|1709210096|000042||"
        );
        assert_eq!(at("%-m/%-d %_m %^a %^B %C %h %E %Q", 1_709_210_096), "2/29  2 THU FEBRUARY 20 Feb %E %Q");
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
            assert_eq!(at("%F %j %w %u %U %W %V %G", day * 86_400), wanted);
        }
    }
}
