//! Numbers and durations in messages, as people write them.

use std::time::Duration;

/// A number with its noun: `1 batch`, `2 batches`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A duration in the largest unit that it is a whole number of: `90s`, `24h`, `31d`. The settings take it back.
pub fn span(duration: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(3_600, "h"), (60, "m"), (1, "s")];
    const DAY: u64 = 86_400;
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 || seconds == 0 {
        return match duration.as_millis() {
            0 => "0s".to_owned(),
            millis => format!("{millis}ms"),
        };
    }
    // A single day is better known as 24h: it is how the settings write it.
    if seconds > DAY && seconds.is_multiple_of(DAY) {
        return format!("{}d", seconds / DAY);
    }
    let unit = UNITS.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
    unit.map_or_else(String::new, |(length, name)| format!("{}{name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_read_back() {
        for text in ["0s", "100ms", "1500ms", "1s", "90s", "5m", "90m", "1h", "24h", "25h", "31d", "366d"] {
            let duration = humantime::parse_duration(text).unwrap();
            assert_eq!(span(duration), text);
        }
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(1, "batch", "batches"), "1 batch");
        assert_eq!(counted(0, "batch", "batches"), "0 batches");
    }
}
