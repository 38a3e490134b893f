//! Names that come in requests. They are checked before they reach the kernel or a message.

use super::messages::Refused;

/// The kernel's rule (`dev_valid_name`: 1 to 15 bytes, no '/', ':' or blank, not "." or ".."), and stricter:
/// printable ASCII, and no '%', which would be a pattern for a name of the kernel's choice.
pub fn interface(name: &str) -> Result<(), Refused> {
    let good = (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte))
        && name != "."
        && name != "..";
    if good {
        Ok(())
    } else {
        Err(Refused::rule(format!(
            "{} is no usable interface name: 1 to 15 printable ASCII characters without / : % and blanks",
            shown(name)
        )))
    }
}

/// A plain file name, as below /run/netns.
pub fn netns(name: &str) -> Result<(), Refused> {
    let good = (1..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && name != "."
        && name != "..";
    if good {
        Ok(())
    } else {
        Err(Refused::rule(format!(
            "{} is no usable name of a network namespace: a plain name as `ip netns list` shows it",
            shown(name)
        )))
    }
}

/// Quoted, escaped and cut, so that no name can break a line of a log.
pub fn shown(name: &str) -> String {
    let start: String = name.chars().take(80).collect();
    if start.len() < name.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_of_the_kernels_kind_only() {
        for good in ["vm1.0", "eth0", "a", "fifteen-bytes-x"] {
            assert_eq!(interface(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\nb",
            "a\u{1b}[31m",
            "tap%d",
            "a:1",
            "ü",
            "sixteen-bytes-xx",
            "a\0",
        ] {
            let refused = interface(bad).unwrap_err();
            assert!(!refused.message.contains(['\n', '\u{1b}']), "{:?}", refused.message);
        }
    }

    #[test]
    fn namespace_names_are_plain() {
        assert_eq!(netns("guest-1"), Ok(()));
        for bad in ["", ".", "..", "../x", "a/b", "a b", "x\n", &"n".repeat(256)] {
            assert!(netns(bad).is_err(), "{bad:?}");
        }
    }
}
