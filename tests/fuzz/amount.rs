//! The decimal parser, against one that moves digits about as text.

use ingestor_consumo::amount::{Amount, AmountError};
use proptest::prelude::*;

use crate::fuzz;

/// Beyond this an exponent only means "zero" or "too large" for the tokens made here.
const EXPONENT_MAX: i64 = 100_000;

/// The nano-units as text, or why there are none. Every step is one on digits.
fn reference(token: &str, max_integer_digits: usize) -> Result<String, AmountError> {
    let not_a_number = AmountError::NotANumber;
    let (sign, rest) = token.strip_prefix('-').map_or(("", token), |rest| ("-", rest));
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let (integer, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(i, f)| (i, Some(f)));
    let all_digits = |text: &str| !text.is_empty() && text.chars().all(|char| char.is_ascii_digit());
    if !all_digits(integer) || fraction.is_some_and(|fraction| !all_digits(fraction)) {
        return Err(not_a_number);
    }
    if integer.len() > 1 && integer.starts_with('0') {
        return Err(not_a_number);
    }
    let exponent = match exponent {
        None => 0,
        Some(text) => {
            let (negative, digits) = match text.split_at_checked(1) {
                Some(("-", digits)) => (true, digits),
                Some(("+", digits)) => (false, digits),
                _ => (false, text),
            };
            if !all_digits(digits) {
                return Err(not_a_number);
            }
            let digits = digits.trim_start_matches('0');
            let size = if digits.len() > 6 { EXPONENT_MAX } else { digits.parse().unwrap_or(0).min(EXPONENT_MAX) };
            if negative { -size } else { size }
        }
    };
    let digits = format!("{integer}{}", fraction.unwrap_or_default());
    if digits.chars().all(|digit| digit == '0') {
        return Ok("0".to_owned());
    }
    // Where the point comes to stand for nano-units, counted from the first digit.
    let point = integer.len() as i64 + exponent + 9;
    let (kept, dropped) = match point {
        ..0 => return Ok("0".to_owned()),
        _ if point as usize >= digits.len() => {
            (format!("{digits}{}", "0".repeat(point as usize - digits.len())), String::new())
        }
        _ => (digits[..point as usize].to_owned(), digits[point as usize..].to_owned()),
    };
    let mut kept = format!("0{}", kept.trim_start_matches('0'));
    let half = format!("5{}", "0".repeat(dropped.len().saturating_sub(1)));
    let is_odd = kept.ends_with(['1', '3', '5', '7', '9']);
    if !dropped.is_empty() && (dropped > half || (dropped == half && is_odd)) {
        let nines = kept.len() - kept.trim_end_matches('9').len();
        let at = kept.len() - nines - 1;
        let next = char::from(kept.as_bytes()[at] + 1);
        kept = format!("{}{next}{}", &kept[..at], "0".repeat(nines));
    }
    let kept = kept.trim_start_matches('0');
    match kept.len() {
        0 => Ok("0".to_owned()),
        length if length > max_integer_digits + 9 => Err(AmountError::TooLarge(max_integer_digits as u32)),
        _ => Ok(format!("{sign}{kept}")),
    }
}

#[test]
fn decimals_are_read_exactly() {
    let digits = prop_oneof!["[0-9]{1,40}", "[05]{1,40}", "9{1,40}", "0{1,12}[0-9]{1,4}", "1[0-9]{0,17}"];
    let fraction = prop_oneof![Just(String::new()), digits.clone().prop_map(|digits| format!(".{digits}"))];
    let exponent = prop_oneof![
        Just(String::new()),
        Just(String::new()),
        "[eE][-+]?[0-9]{1,2}",
        "[eE][-+]?0{0,4}[0-9]{1,25}",
        "[eE][-+]?",
    ];
    let written = ("-?", digits, fraction, exponent).prop_map(|(s, i, f, e)| {
        let i = i.trim_start_matches('0');
        format!("{s}{}{f}{e}", if i.is_empty() { "0" } else { i })
    });
    let token = prop_oneof![4 => written.clone(), 1 => "[-+0-9.eE]{0,30}", 1 => "\\PC{0,12}",
    2 => (written, any::<prop::sample::Index>(), "[-+0-9.eE ]").prop_map(|(token, at, char)| {
        let at = at.index(token.len());
        format!("{}{char}{}", &token[..at], &token[at + 1..])
    })];
    fuzz("tests/fuzz/seeds/amount.txt", &token, |token| {
        for max_digits in [Amount::PULSE_DIGITS, Amount::AGGREGATE_DIGITS, 1] {
            let found = Amount::parse(&token, max_digits).map(|amount| amount.nanos().to_string());
            prop_assert_eq!(&found, &reference(&token, max_digits as usize), "{:?}", token);
        }
        if let Ok(amount) = Amount::parse(&token, Amount::AGGREGATE_DIGITS) {
            prop_assert_eq!(Amount::parse(&amount.to_string(), Amount::AGGREGATE_DIGITS), Ok(amount));
            let (hi, lo) = amount.to_limbs();
            prop_assert_eq!(Amount::from_limbs(hi, lo), amount);
        }
        Ok(())
    });
}
