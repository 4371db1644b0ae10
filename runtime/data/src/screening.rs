//! Personal data in what a writer calls public or operational.
//!
//! One pass over the bytes: only at an `@`, a `+` or the first character of a word is anything looked at more closely.
//! Every detector demands a whole word, and a check digit or a register where its kind has one, because a writer who
//! is refused without cause turns the label into `personal` for good, and then the label says nothing. What is compressed,
//! encrypted or spelt out is not seen; neither are names and addresses.
//!
//! The audit has detectors of its own (`compliance/src/audit/detect`), which share nothing with these.

/// What a text was taken for. Never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Email,
    Phone,
    Iban,
    Card,
    /// A number that a state gives to a person, and which state.
    Person(&'static str),
}

impl Found {
    /// In words.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Email => "an e-mail address".into(),
            Self::Phone => "a telephone number".into(),
            Self::Iban => "an IBAN".into(),
            Self::Card => "a payment card number".into(),
            Self::Person(of) => of.into(),
        }
    }
}

/// The first personal data in `bytes`, if any.
pub(crate) fn screen(bytes: &[u8]) -> Option<Found> {
    let mut at = 0;
    let mut before = b' ';
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'@' if is_email(&bytes[..at], &bytes[at + 1..]) => return Some(Found::Email),
            b'+' if !before.is_ascii_alphanumeric() && !b".+-%".contains(&before) && is_phone(&bytes[at + 1..]) => {
                return Some(Found::Phone);
            }
            _ if byte.is_ascii_alphanumeric() => {
                let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
                let glued = matches!(before, b'.' | b'+' | b'%' | b'_') || before == b'-' && byte.is_ascii_digit();
                if !glued && let Some(found) = word(&bytes[at..], length) {
                    return Some(found);
                }
                at += length;
                before = b'a';
                continue;
            }
            _ => {}
        }
        before = byte;
        at += 1;
    }
    None
}

/// What begins with a word of this length.
fn word(rest: &[u8], length: usize) -> Option<Found> {
    let (first, after) = rest.split_at(length);
    let ends = |after: &[u8]| {
        !matches!(after, [b'_' | b'%', ..]) && !matches!(after, [b'.', next, ..] if next.is_ascii_digit())
    };
    if first.len() >= 2 && first[..2].iter().all(u8::is_ascii_uppercase) && is_iban(rest) {
        return Some(Found::Iban);
    }
    if first[0].is_ascii_digit() && (length == 4 || (14..=16).contains(&length)) && is_card(rest) {
        return Some(Found::Card);
    }
    if length >= 8
        && ends(after)
        && !matches!(after, [b'-', ..])
        && let Some(of) = whole(first)
    {
        return Some(Found::Person(of));
    }
    if first[0].is_ascii_digit() && (3..=6).contains(&length) {
        return grouped(rest).map(Found::Person);
    }
    None
}

fn digit(byte: u8) -> u32 {
    u32::from(byte.wrapping_sub(b'0'))
}

fn digits(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
}

fn number(text: &[u8]) -> u64 {
    text.iter().fold(0, |value, byte| value * 10 + u64::from(digit(*byte)))
}

fn weighed(text: &[u8], weights: &[u32]) -> u32 {
    text.iter().zip(weights).map(|(byte, weight)| digit(*byte) * weight).sum()
}

fn is_date(day: &[u8], month: &[u8]) -> bool {
    (1..=31).contains(&number(day)) && (1..=12).contains(&number(month))
}

/// Numbers that are written in one word, with letters or a structure that plain counters do not have.
fn whole(word: &[u8]) -> Option<&'static str> {
    const DNI: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    match word.len() {
        // Spain, Real Decreto 1553/2005: eight digits and their rest by 23; NIE begin with X, Y or Z.
        9 if digits(&word[1..8]) && word[8].is_ascii_uppercase() => {
            let first = match word[0] {
                b'X' => 0,
                b'Y' => 1,
                b'Z' => 2,
                other if other.is_ascii_digit() => u64::from(digit(other)),
                letter => return singapore(letter, word),
            };
            let rest = (first * 10_000_000 + number(&word[1..8])) % 23;
            (DNI[rest as usize] == word[8]).then_some("a Spanish identity number")
        }
        // Italy, Decreto 23 dicembre 1976: sixteen characters, the last one checks the others.
        16 if word[..6].iter().all(u8::is_ascii_uppercase) => italian(word).then_some("an Italian codice fiscale"),
        // China, GB 11643-1999: ISO 7064 MOD 11-2, with the date of birth.
        18 if digits(&word[..17]) && is_date(&word[12..14], &word[10..12]) && matches!(&word[6..8], b"19" | b"20") => {
            const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
            let check = b"10X98765432"[(weighed(word, &WEIGHTS) % 11) as usize];
            (check == word[17].to_ascii_uppercase()).then_some("a Chinese resident identity number")
        }
        // France, INSEE: sex, year, month, place, order, and 97 less the rest by 97.
        15 if digits(word) && matches!(word[0], b'1' | b'2') && (1..=12).contains(&number(&word[3..5])) => {
            (97 - number(&word[..13]) % 97 == number(&word[13..])).then_some("a French social security number")
        }
        _ => None,
    }
}

/// Singapore: S, T, F or G, seven digits, a letter by their weighed sum.
fn singapore(first: u8, word: &[u8]) -> Option<&'static str> {
    let (offset, letters) = match first {
        b'S' => (0, b"JZIHGFEDCBA"),
        b'T' => (4, b"JZIHGFEDCBA"),
        b'F' => (0, b"XWUTRQPNMLK"),
        b'G' => (4, b"XWUTRQPNMLK"),
        _ => return None,
    };
    let sum = offset + weighed(&word[1..8], &[2, 7, 6, 5, 4, 3, 2]);
    (letters[(sum % 11) as usize] == word[8]).then_some("a Singaporean identity number")
}

fn italian(word: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let shape = b"LLLLLLNNANNANNNA";
    let fits = word.iter().zip(shape).all(|(byte, kind)| match kind {
        b'N' => byte.is_ascii_digit() || b"LMNPQRSTUV".contains(byte),
        _ => byte.is_ascii_uppercase(),
    });
    let value = |byte: u8| if byte.is_ascii_digit() { digit(byte) } else { u32::from(byte - b'A') };
    let sum: u32 = word[..15]
        .iter()
        .enumerate()
        .map(|(at, byte)| if at % 2 == 0 { ODD[value(*byte) as usize] } else { value(*byte) })
        .sum();
    fits && u32::from(word[15] - b'A') == sum % 26
}

/// Numbers that are written in groups.
fn grouped(rest: &[u8]) -> Option<&'static str> {
    let shaped = |shape: &str| -> Option<Vec<u8>> {
        let text = rest.get(..shape.len())?;
        let fits = text.iter().zip(shape.bytes()).all(|(byte, kind)| match kind {
            b'9' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_alphanumeric(),
            b'-' => matches!(byte, b'-' | b'+'),
            other => *byte == other,
        });
        let ends = rest.get(shape.len()).is_none_or(|next| !next.is_ascii_alphanumeric() && !b"-_".contains(next));
        (fits && ends).then(|| text.iter().copied().filter(u8::is_ascii_alphanumeric).collect())
    };
    // United States, SSA: no area 000, 666 or 9xx, no group 00, no serial 0000. There is no check digit.
    if let Some(ssn) = shaped("999-99-9999") {
        let area = number(&ssn[..3]);
        if area != 0 && area != 666 && area < 900 && ssn[3..5] != *b"00" && ssn[5..] != *b"0000" && rest[3] == b'-' {
            return Some("a US social security number");
        }
    }
    // Brazil: two check digits by 11.
    if let Some(cpf) = shaped("999.999.999-99") {
        let check = |count: usize| {
            let sum: u32 = cpf[..count].iter().zip((2..=count as u32 + 1).rev()).map(|(b, w)| digit(*b) * w).sum();
            (sum * 10 % 11) % 10
        };
        if check(9) == digit(cpf[9]) && check(10) == digit(cpf[10]) && cpf.windows(2).any(|two| two[0] != two[1]) {
            return Some("a Brazilian CPF");
        }
    }
    // Sweden, SKV 704: the day of birth and a Luhn digit.
    if let Some(number) = shaped("999999-9999").filter(|number| is_date(&number[4..6], &number[2..4]))
        && luhn(&number)
    {
        return Some("a Swedish personal identity number");
    }
    // Finland: the day of birth, and a letter or digit by 31.
    if let Some(hetu) = shaped("999999-999A").filter(|hetu| is_date(&hetu[..2], &hetu[2..4])) {
        let number = number(&hetu[..9]);
        if b"0123456789ABCDEFHJKLMNPRSTUVWXY"[(number % 31) as usize] == hetu[9].to_ascii_uppercase() {
            return Some("a Finnish personal identity code");
        }
    }
    // India, UIDAI: twelve digits by fours, the last by the dihedral group (Verhoeff).
    if let Some(aadhaar) = shaped("9999 9999 9999").filter(|number| number[0] >= b'2')
        && verhoeff(&aadhaar)
    {
        return Some("an Aadhaar number");
    }
    None
}

fn luhn(text: &[u8]) -> bool {
    let doubled = |value: u32| if value > 4 { value * 2 - 9 } else { value * 2 };
    let sum: u32 =
        text.iter().rev().enumerate().map(|(at, b)| if at % 2 == 1 { doubled(digit(*b)) } else { digit(*b) }).sum();
    sum.is_multiple_of(10)
}

/// Verhoeff's check over the dihedral group of order ten.
fn verhoeff(text: &[u8]) -> bool {
    let times = |a: u32, b: u32| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b - 5) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const ONCE: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let check = text.iter().rev().enumerate().fold(0, |check, (at, byte)| {
        let turned = (0..at % 8).fold(digit(*byte), |value, _| ONCE[value as usize]);
        times(check, turned)
    });
    check == 0
}

fn is_email(before: &[u8], after: &[u8]) -> bool {
    let name = before.iter().rev().take(65).take_while(|b| b.is_ascii_alphanumeric() || b"._%+-".contains(b)).count();
    let local = &before[before.len() - name..];
    let host = after.iter().take(254).take_while(|b| b.is_ascii_alphanumeric() || b".-".contains(b)).count();
    let (domain, follows) = (&after[..host], after.get(host));
    let domain = domain.strip_suffix(b".").unwrap_or(domain);
    let preceded = before.len().checked_sub(name + 1).map(|at| before[at]);
    if !(1..=64).contains(&name) || matches!(follows, Some(b':' | b'@' | b'_')) || matches!(preceded, Some(b':' | b'@'))
    {
        return false;
    }
    if local[0] == b'.' || local[name - 1] == b'.' || !local.iter().any(u8::is_ascii_alphanumeric) {
        return false;
    }
    let mut labels = domain.rsplit(|byte| *byte == b'.');
    // Words that end file names and units of a system.
    const NO_TOP: [&[u8]; 21] = [
        b"png", b"jpg", b"jpeg", b"gif", b"webp", b"svg", b"ico", b"css", b"js", b"mjs", b"ts", b"tsx", b"json",
        b"html", b"map", b"woff", b"ttf", b"service", b"socket", b"timer", b"local",
    ];
    let top = labels.next().unwrap_or_default();
    let good = |label: &[u8]| (1..=63).contains(&label.len()) && label[0] != b'-' && label[label.len() - 1] != b'-';
    (2..=24).contains(&top.len())
        && top.iter().all(u8::is_ascii_alphabetic)
        && !NO_TOP.iter().any(|end| end.eq_ignore_ascii_case(top))
        && domain.len() > top.len()
        && labels.all(good)
}

/// Lengths of IBANs by country, from the SWIFT registry.
fn iban_length(country: &[u8]) -> Option<usize> {
    Some(match country {
        b"NO" => 15,
        b"BE" => 16,
        b"DK" | b"FI" | b"FO" | b"GL" | b"NL" => 18,
        b"MK" | b"SI" => 19,
        b"AT" | b"BA" | b"EE" | b"KZ" | b"LT" | b"LU" | b"XK" => 20,
        b"CH" | b"HR" | b"LI" | b"LV" => 21,
        b"BG" | b"BH" | b"CR" | b"DE" | b"GB" | b"GE" | b"IE" | b"ME" | b"RS" | b"VA" => 22,
        b"AE" | b"GI" | b"IL" | b"IQ" | b"TL" => 23,
        b"AD" | b"CZ" | b"ES" | b"MD" | b"PK" | b"RO" | b"SA" | b"SE" | b"SK" | b"TN" | b"VG" => 24,
        b"LY" | b"PT" | b"ST" => 25,
        b"IS" | b"TR" => 26,
        b"FR" | b"GR" | b"IT" | b"MC" | b"MR" | b"SM" => 27,
        b"AL" | b"AZ" | b"BY" | b"CY" | b"DO" | b"GT" | b"HU" | b"LB" | b"PL" | b"SV" => 28,
        b"BR" | b"EG" | b"PS" | b"QA" | b"UA" => 29,
        b"JO" | b"KW" | b"MU" => 30,
        b"MT" | b"SC" => 31,
        b"LC" => 32,
        _ => return None,
    })
}

fn is_iban(rest: &[u8]) -> bool {
    let Some(length) = rest.get(..2).and_then(iban_length) else { return false };
    let mut text = Vec::with_capacity(length);
    let mut at = 0;
    while text.len() < length {
        match rest.get(at) {
            Some(byte) if byte.is_ascii_uppercase() || byte.is_ascii_digit() => text.push(*byte),
            Some(b' ' | b'-') if at > 1 && rest.get(at + 1).is_some_and(u8::is_ascii_alphanumeric) => {}
            _ => return false,
        }
        at += 1;
    }
    let ends = rest.get(at).is_none_or(|next| !next.is_ascii_alphanumeric());
    // ISO 7064 MOD 97-10, over the account first and the head last.
    let rest_of = text[4..].iter().chain(&text[..4]).fold(0_u64, |rest, byte| match byte.is_ascii_digit() {
        true => (rest * 10 + u64::from(digit(*byte))) % 97,
        false => (rest * 100 + u64::from(*byte - b'A') + 10) % 97,
    });
    ends && digits(&text[2..4]) && rest_of == 1
}

fn is_card(rest: &[u8]) -> bool {
    // In one piece, by fours, or as American Express and Diners print them.
    ["", "4 4 4 4", "4 6 5", "4 6 4"].iter().any(|form| {
        let mut number = Vec::with_capacity(16);
        let mut at = 0;
        let groups: Vec<usize> = form.split(' ').filter_map(|count| count.parse().ok()).collect();
        if groups.is_empty() {
            number.extend(rest.iter().copied().take_while(u8::is_ascii_digit));
            at = number.len();
        }
        for (place, count) in groups.iter().enumerate() {
            if place > 0 {
                if !matches!(rest.get(at), Some(b' ' | b'-')) {
                    return false;
                }
                at += 1;
            }
            match rest.get(at..at + count) {
                Some(some) if digits(some) => number.extend_from_slice(some),
                _ => return false,
            }
            at += count;
        }
        let glued = matches!(rest.get(at), Some(next) if next.is_ascii_alphanumeric() || *next == b'%')
            || matches!(rest.get(at..at + 2), Some([b'.', next]) if next.is_ascii_digit());
        !glued && is_issued(&number) && luhn(&number)
    })
}

/// Issuer ranges of ISO/IEC 7812.
fn is_issued(card: &[u8]) -> bool {
    let head = |count| number(&card[..count]);
    match card.len() {
        14 => matches!(head(3), 300..=305 | 360..=369 | 380..=389),
        15 => matches!(head(2), 34 | 37),
        16 => {
            card[0] == b'4'
                || matches!(head(2), 51..=55 | 65)
                || matches!(head(3), 644..=649)
                || matches!(head(4), 2221..=2720 | 3528..=3589 | 6011)
        }
        _ => false,
    }
}

/// A number of ITU-T E.164 behind its `+`: an assigned code, and nine to fifteen digits, in groups perhaps.
fn is_phone(after: &[u8]) -> bool {
    let mut number = Vec::with_capacity(15);
    let mut at = 0;
    // Where a number may end, so that a date behind it does not hide it.
    let mut ended = Vec::new();
    while let Some(&byte) = after.get(at).filter(|_| at < 32 && number.len() < 16) {
        match byte {
            b'0'..=b'9' => number.push(byte),
            b' ' | b'-' | b'(' | b')' if !number.is_empty() => ended.push(number.len()),
            _ => break,
        }
        at += 1;
    }
    let glued = matches!(after.get(at), Some(next) if next.is_ascii_alphanumeric() || *next == b'%')
        || matches!(after.get(at..at + 2), Some([b'.', next]) if next.is_ascii_digit());
    if !glued {
        ended.push(number.len());
    }
    ended.into_iter().any(|count| (9..=15).contains(&count) && is_assigned(&number[..count]))
}

fn is_assigned(phone: &[u8]) -> bool {
    match (phone[0], number(&phone[..2])) {
        (b'1', _) => phone.len() == 11 && phone[1] >= b'2' && phone[4] >= b'2',
        (b'7', _) => phone.len() == 11,
        (_, two) => !matches!(two, 0..=9 | 28 | 80 | 83 | 87 | 89),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_data_is_seen_in_the_forms_that_people_write() {
        for (text, name) in [
            ("write to ada.lovelace+news@mail.example.org.", "an e-mail address"),
            ("{\"to\":\"ada@example.com\"}", "an e-mail address"),
            ("users/ada@example.co.uk/avatar", "an e-mail address"),
            ("pay GB82 WEST 1234 5698 7654 32 today", "an IBAN"),
            ("iban:DE89370400440532013000", "an IBAN"),
            ("NO9386011117947", "an IBAN"),
            ("card 4111 1111 1111 1111 12/30", "a payment card number"),
            ("cards/4111111111111111.", "a payment card number"),
            ("5555-5555-5555-4444", "a payment card number"),
            ("\"378282246310005\"", "a payment card number"),
            ("3782 822463 10005", "a payment card number"),
            ("call +49 30 901820", "a telephone number"),
            ("tel:+14155552671", "a telephone number"),
            ("+44 (0)20 7946 0958", "a telephone number"),
            ("+49 30 901820 2026-01-01", "a telephone number"),
            ("dni 12345678Z", "a Spanish identity number"),
            ("X1234567L", "a Spanish identity number"),
            ("RSSMRA85T10A562S", "an Italian codice fiscale"),
            ("11010519491231002X", "a Chinese resident identity number"),
            ("255081416802538", "a French social security number"),
            ("S1234567D", "a Singaporean identity number"),
            ("ssn 123-45-6789.", "a US social security number"),
            ("111.444.777-35", "a Brazilian CPF"),
            ("811228-9874", "a Swedish personal identity number"),
            ("131052-308T", "a Finnish personal identity code"),
            ("2341 2341 2346", "an Aadhaar number"),
        ] {
            assert_eq!(screen(text.as_bytes()).map(Found::name).as_deref(), Some(name), "{text}");
        }
        let hidden = [b"\xFF\x00".as_slice(), b"ada@example.com", b"\xFE"].concat();
        assert_eq!(screen(&hidden), Some(Found::Email));
    }

    #[test]
    fn what_only_looks_like_personal_data_is_let_through() {
        for text in [
            "logo@2x.png",
            "react@18.2.0",
            "git@github.com:example/repository.git",
            "https://user:secret@host.example",
            "@decorator.method()",
            "a @ b.example",
            "getty@tty1.service",
            "GB82 WEST 1234 5698 7654 33",
            "DE8937040044053201300",
            "XX89370400440532013000",
            "4111 1111 1111 1112",
            "0000000000000000",
            "1767225600000000",
            "3.4111111111111111",
            "4111111111111111e3",
            "d41d8cd98f00b204e9800998ecf8427e",
            "2026-01-01T00:00:00+0100",
            "+1 000 000 0000",
            "x+4930901820",
            "+1234567",
            "1 + 2 + 3 = 6",
            "4006381333931",
            "12345678A",
            "RSSMRA85T10A562T",
            "110105194912310021",
            "S1234567A",
            "000-12-3456",
            "111.444.777-36",
            "811228-9873",
            "131052-308U",
            "2341 2341 2347",
            "2026-07-28",
            "1.2.3.4",
            "550e8400-e29b-41d4-a716-446655440000",
            "value 17",
            "",
        ] {
            assert_eq!(screen(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        let alphabet = b"0123456789+-@. ()ABCDEXGZabz_%\xFF";
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..next() % 40).map(|_| alphabet[next() % alphabet.len()]).collect();
            screen(&text);
        }
    }
}
