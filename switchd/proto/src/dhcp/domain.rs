//! Domain names as DNS writes them (RFC 1035 3.1, 4.1.4), for the options that hold lists of them.

/// Labels of a name, if it is one: 1–63 octets each, 253 together.
fn labels(name: &str) -> Option<Vec<&str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let labels: Vec<&str> = name.split('.').collect();
    let good = name.len() <= 253 && labels.iter().all(|label| (1..=63).contains(&label.len()));
    good.then_some(labels)
}

/// Appends the name without compression. False, and nothing appended: it is no name.
pub fn push(name: &str, value: &mut Vec<u8>) -> bool {
    let Some(labels) = labels(name) else { return false };
    for label in labels {
        value.push(label.len() as u8);
        value.extend_from_slice(label.as_bytes());
    }
    value.push(0);
    true
}

/// Appends the name, its end replaced by a pointer where `value` holds that end already.
pub fn push_compressed(name: &str, value: &mut Vec<u8>) -> bool {
    let Some(labels) = labels(name) else { return false };
    for (index, label) in labels.iter().enumerate() {
        let mut rest = Vec::new();
        push(&labels[index..].join("."), &mut rest);
        let known = value.windows(rest.len()).position(|window| window == rest);
        if let Some(at) = known.filter(|&at| at < 0x3fff) {
            value.extend_from_slice(&(0xc000 | at as u16).to_be_bytes());
            return true;
        }
        value.push(label.len() as u8);
        value.extend_from_slice(label.as_bytes());
    }
    value.push(0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3397_the_example_of_section_2() {
        let mut value = Vec::new();
        assert!(push_compressed("eng.apple.com.", &mut value));
        assert!(push_compressed("marketing.apple.com.", &mut value));
        assert_eq!(value, b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04");
        assert!(!push_compressed("a..b", &mut value) && !push("", &mut value));
    }
}
