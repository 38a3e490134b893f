//! Names of capture files: `lab.pcapng`, and beside it `lab.00001.pcapng`, `lab.00002.pcapng`, …
//!
//! A capture that rotates writes numbered files only, so that a listing is in order of time. One that does
//! not writes the file that it was told, and goes to a numbered one only when what it finds there cannot be
//! continued.

/// A file's path, cut where the number goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    plain: String,
    /// Length of folder and stem.
    cut: usize,
}

impl Names {
    pub fn new(path: &str) -> Names {
        let file = path.rfind('/').map_or(0, |slash| slash + 1);
        let cut = match path[file..].rfind('.') {
            Some(dot) if dot > 0 => file + dot,
            _ => path.len(),
        };
        Names { plain: path.to_owned(), cut }
    }

    /// The path as it was told.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// The path of file `number`, with at least five digits.
    pub fn numbered(&self, number: u32) -> String {
        let (stem, extension) = self.plain.split_at(self.cut);
        format!("{stem}.{number:05}{extension}")
    }

    /// The number of a file in the same folder, if it is one of ours.
    pub fn number_of(&self, file_name: &str) -> Option<u32> {
        let (stem, extension) = self.plain.split_at(self.cut);
        let stem = stem.rsplit('/').next().unwrap_or(stem);
        let digits = file_name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(extension)?;
        let number: u32 = digits.parse().ok()?;
        (number > 0 && format!("{number:05}") == digits).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_extension() {
        for (path, numbered, file) in [
            ("lab.pcapng", "lab.00012.pcapng", "lab.00012.pcapng"),
            ("a.b/c/lab", "a.b/c/lab.00012", "lab.00012"),
            ("x/.hidden", "x/.hidden.00012", ".hidden.00012"),
            ("two.dots.pcapng", "two.dots.00012.pcapng", "two.dots.00012.pcapng"),
        ] {
            let names = Names::new(path);
            assert_eq!(names.plain(), path);
            assert_eq!(names.numbered(12), numbered);
            assert_eq!(names.number_of(file), Some(12), "{path}");
        }
        assert_eq!(Names::new("lab.pcapng").numbered(1_234_567), "lab.1234567.pcapng");
        assert_eq!(Names::new("lab.pcapng").number_of("lab.1234567.pcapng"), Some(1_234_567));
    }

    #[test]
    fn other_files_have_no_number() {
        let names = Names::new("a/lab.pcapng");
        for other in [
            "lab.pcapng",
            "lab.1.pcapng",
            "lab.00000.pcapng",
            "lab.000012.pcapng",
            "lab.00012.pcap",
            "lab2.00012.pcapng",
            "lab.+0012.pcapng",
            "",
        ] {
            assert_eq!(names.number_of(other), None, "{other}");
        }
    }
}
