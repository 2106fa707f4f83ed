//! Exact decimal amounts, counted in nano-units; no floating point anywhere.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// Nano-units in one unit: the quantum is 1e-9.
const NANOS_PER_UNIT: i128 = 1_000_000_000;
/// Decimal places the quantum keeps.
const FRACTION_DIGITS: i64 = 9;
/// What the upper limb of a stored amount counts, in nano-units.
const LIMB_BASE: i128 = 1_000_000_000_000_000_000;

/// An exact amount, in whole nano-units (1e-9 of the pulse's unit).
///
/// A pulse carries at most 18 integer digits, so 1e11 of the largest pulses still fit a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// Why a token is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The token does not follow the number grammar of RFC 8259, section 6.
    #[error("must be a decimal number, such as 307 or \"0.1\"")]
    NotANumber,
    /// More integer digits than the caller allows.
    #[error("must have at most {0} digits before the decimal point")]
    TooLarge(u32),
}

impl Amount {
    /// No usage at all.
    pub const ZERO: Amount = Amount(0);
    /// Integer digits a single pulse may have.
    pub const PULSE_DIGITS: u32 = 18;
    /// Integer digits an aggregate may have: the sum of a thousand million largest pulses. One more would not always
    /// fit the limbs.
    pub const AGGREGATE_DIGITS: u32 = 27;

    /// An amount of so many nano-units.
    pub const fn from_nanos(nanos: i128) -> Self {
        Amount(nanos)
    }

    /// The amount in nano-units.
    pub const fn nanos(self) -> i128 {
        self.0
    }

    /// Whether it is greater than zero.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Reads a JSON number token, or the content of a string holding one (RFC 8259, section 6).
    ///
    /// Digits beyond the ninth decimal place are rounded half to even.
    ///
    /// # Errors
    /// [`AmountError::NotANumber`] for anything outside that grammar, [`AmountError::TooLarge`] when the rounded value
    /// has more than `max_integer_digits` (at most [`Amount::AGGREGATE_DIGITS`]) digits before the decimal point.
    pub fn parse(token: &str, max_integer_digits: u32) -> Result<Self, AmountError> {
        debug_assert!(max_integer_digits <= Self::AGGREGATE_DIGITS);
        let number = Number::parse(token.as_bytes()).ok_or(AmountError::NotANumber)?;
        let too_large = AmountError::TooLarge(max_integer_digits);
        let magnitude = number.nanos(max_integer_digits).ok_or(too_large)?;
        if magnitude >= 10i128.pow(max_integer_digits) * NANOS_PER_UNIT {
            return Err(too_large);
        }
        Ok(Amount(if number.negative { -magnitude } else { magnitude }))
    }

    /// Splits into the two limbs the stores keep: `hi * 1e18 + lo` nano-units, `0 <= lo < 1e18`.
    pub fn to_limbs(self) -> (i64, i64) {
        let hi =
            i64::try_from(self.0.div_euclid(LIMB_BASE)).expect("a sum of pulses stays far below 9.2e36 nano-units");
        let lo = i64::try_from(self.0.rem_euclid(LIMB_BASE)).expect("a remainder by 1e18 fits 64 bits");
        (hi, lo)
    }

    /// The inverse of [`Amount::to_limbs`]; `lo` may lie outside `0..1e18`, as a store leaves it between carries.
    pub fn from_limbs(hi: i64, lo: i64) -> Self {
        Amount(i128::from(hi) * LIMB_BASE + i128::from(lo))
    }
}

/// A number token taken apart: its significant digits and where the decimal point stands.
struct Number<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    /// Power of ten, saturated: beyond a few million it only ever means "too large" or "zero".
    exponent: i64,
}

impl<'a> Number<'a> {
    fn parse(token: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match token.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, token),
        };
        let (integer, rest) = split_digits(rest);
        if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest.strip_prefix(b".") {
            Some(rest) => Some(split_digits(rest)).filter(|(digits, _)| !digits.is_empty())?,
            None => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', exponent @ ..] => parse_exponent(exponent)?,
            _ => return None,
        };
        Some(Number { negative, integer, fraction, exponent })
    }

    /// The magnitude in nano-units, rounded half to even; `None` if it has more integer digits than allowed.
    fn nanos(&self, max_integer_digits: u32) -> Option<i128> {
        let all = || self.integer.iter().chain(self.fraction).map(|digit| digit - b'0');
        let total = (self.integer.len() + self.fraction.len()) as i64;
        let leading_zeros = all().take_while(|&digit| digit == 0).count() as i64;
        if leading_zeros == total {
            return Some(0);
        }
        // The decimal point stands after so many digits, counted from the first digit of the token.
        let point = (self.integer.len() as i64).saturating_add(self.exponent);
        if point - leading_zeros > i64::from(max_integer_digits) {
            return None;
        }
        // Digits before `kept` count whole nano-units; those after it only decide the rounding.
        let kept = point.saturating_add(FRACTION_DIGITS);
        if kept < leading_zeros {
            return Some(0);
        }
        let mut nanos: i128 = 0;
        let mut digits = all();
        for _ in 0..kept {
            // Past the token's end each place is a zero.
            nanos = nanos * 10 + i128::from(digits.next().unwrap_or(0));
        }
        let first_dropped = digits.next().unwrap_or(0);
        let rounds_up = match first_dropped {
            0..=4 => false,
            5 => digits.any(|digit| digit != 0) || nanos % 2 == 1,
            _ => true,
        };
        Some(nanos + i128::from(rounds_up))
    }
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}

fn parse_exponent(bytes: &[u8]) -> Option<i64> {
    const SATURATED: i64 = 1_000_000_000_000;
    let (sign, bytes) = match bytes {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, bytes),
    };
    let (digits, rest) = split_digits(bytes);
    if digits.is_empty() || !rest.is_empty() {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(SATURATED));
    Some(sign * magnitude)
}

impl fmt::Display for Amount {
    /// All digits and no more: `307`, `0.1`, `-2.000000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let (units, nanos) = (magnitude / NANOS_PER_UNIT as u128, magnitude % NANOS_PER_UNIT as u128);
        if nanos == 0 {
            return f.pad(&format!("{sign}{units}"));
        }
        let fraction = format!("{nanos:09}");
        f.pad(&format!("{sign}{units}.{}", fraction.trim_end_matches('0')))
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0 + other.0)
    }
}

impl Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0 - other.0)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Amount) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(token: &str, expected: Result<&str, AmountError>) {
        let parsed = Amount::parse(token, Amount::PULSE_DIGITS).map(|amount| amount.to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "token {token:.60}");
    }

    #[test]
    fn reads_the_tokens_own_digits() {
        check("307", Ok("307"));
        check("0.1", Ok("0.1"));
        check("1.50", Ok("1.5"));
        check("-2.000000001", Ok("-2.000000001"));
        check("1e3", Ok("1000"));
        check("1E+3", Ok("1000"));
        check("12.5e-1", Ok("1.25"));
        check("0.000000001e18", Ok("1000000000"));
        check("999999999999999999.999999999", Ok("999999999999999999.999999999"));
        check("9007199254740993", Ok("9007199254740993"));
        check("-0", Ok("0"));
    }

    #[test]
    fn rounds_half_to_even_beyond_nine_places() {
        check("0.0000000005", Ok("0"));
        check("0.0000000015", Ok("0.000000002"));
        check("0.0000000025", Ok("0.000000002"));
        check("0.00000000250000000000000001", Ok("0.000000003"));
        check("0.0000000024999", Ok("0.000000002"));
        check("5e-10", Ok("0"));
        check("6e-10", Ok("0.000000001"));
        check("9e-11", Ok("0"));
        check("1e-999999999", Ok("0"));
        check(&format!("0.{}1", "0".repeat(100_000)), Ok("0"));
    }

    #[test]
    fn refuses_what_is_too_large() {
        let too_large = Err(AmountError::TooLarge(18));
        check("1000000000000000000", too_large);
        check("999999999999999999.9999999999", too_large);
        check("1e18", too_large);
        check("1e400", too_large);
        check("1e99999999999999999999999999", too_large);
        check(&"9".repeat(1_000_000), too_large);
        check("0e400", Ok("0"));
    }

    #[test]
    fn refuses_what_is_no_json_number() {
        for token in [
            "", "-", "+1", "01", ".5", "5.", "1e", "1e+", "1.2.3", "NaN", "Infinity", "0x10", " 1", "1 ", "1_000", "１",
        ] {
            check(token, Err(AmountError::NotANumber));
        }
    }

    #[test]
    fn a_tenth_added_a_million_times_is_a_hundred_thousand() {
        let tenth = Amount::parse("0.1", Amount::PULSE_DIGITS).unwrap();
        let sum: Amount = std::iter::repeat_n(tenth, 1_000_000).sum();
        assert_eq!(sum.to_string(), "100000");
    }

    #[test]
    fn the_largest_aggregate_fits_the_limbs() {
        let largest = Amount::parse(&"9".repeat(Amount::AGGREGATE_DIGITS as usize), Amount::AGGREGATE_DIGITS).unwrap();
        let (hi, lo) = largest.to_limbs();
        assert_eq!(Amount::from_limbs(hi, lo), largest);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos in -(10i128.pow(27) - 1)..10i128.pow(27)) {
            let amount = Amount::from_nanos(nanos);
            prop_assert_eq!(Amount::parse(&amount.to_string(), Amount::PULSE_DIGITS), Ok(amount));
        }

        #[test]
        fn limbs_are_exact(nanos in -10i128.pow(36)..10i128.pow(36)) {
            let (hi, lo) = Amount::from_nanos(nanos).to_limbs();
            prop_assert!((0..LIMB_BASE).contains(&i128::from(lo)));
            prop_assert_eq!(Amount::from_limbs(hi, lo).nanos(), nanos);
        }

        #[test]
        fn any_text_is_refused_or_read_without_a_panic(token in "[-+0-9.eE]{0,40}") {
            let _ = Amount::parse(&token, Amount::PULSE_DIGITS);
        }

        #[test]
        fn an_exponent_moves_the_point(digits in 1u64..1_000_000, exponent in -9i32..9) {
            let written = Amount::parse(&format!("{digits}e{exponent}"), Amount::PULSE_DIGITS).unwrap();
            let expected = i128::from(digits) * 10i128.pow((exponent + 9) as u32);
            prop_assert_eq!(written.nanos(), expected);
        }
    }
}
