//! `switchd man DIR`: the manual page, made from the definition of the command line.

use crate::args::Cli;
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::io::Write;
use std::path::Path;

/// Writes `switchd.8` into a folder, which is made when missing.
pub fn write(directory: &Path) -> Result<()> {
    let path = directory.join("switchd.8");
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&path, page()?))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let man = clap_mangen::Man::new(command.clone()).section("8").manual("switchd").source("switchd");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    // The one command is told here: a page of its own would be mostly empty.
    writeln!(text, ".SH DEMO\n.B switchd demo\n[\\fB\\-\\-keep\\fR]\n.PP")?;
    if let Some(demo) = command.find_subcommand("demo") {
        let about = demo.get_long_about().or(demo.get_about()).map(ToString::to_string).unwrap_or_default();
        writeln!(text, "{}\n.PP", about.replace('-', "\\-"))?;
        for argument in demo.get_arguments().filter(|argument| argument.get_id() == "keep") {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(text, ".TP\n\\fB\\-\\-keep\\fR\n{help}")?;
        }
    }
    text.extend_from_slice(ENDING.as_bytes());
    Ok(text)
}

const ENDING: &str = r#".SH FILES
.TP
.I /run/switchd/switchd.sock
Control socket: HTTP and JSON, described at /v1/openapi.json. Rootless: $XDG_RUNTIME_DIR/switchd.sock.
.TP
.I /var/lib/switchd
Saved state: the configuration (desired.toml, and the one before it) and the addresses of the taps.
Rootless: $XDG_STATE_HOME/switchd or ~/.local/state/switchd.
.TP
.I /var/lib/switchd/captures
Captures of mirrors.
.SH ENVIRONMENT
.TP
.B RUST_LOG
What is logged to standard error, as in switchd=debug.
.SH "EXIT STATUS"
0 after an orderly end, 1 when it cannot start or the check of a configuration fails, 2 for a command line
that is not understood.
.SH "SEE ALSO"
.BR switchctl (1)
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_every_option() {
        let text = String::from_utf8(page().unwrap()).unwrap().replace("\\-", "-");
        let command = Cli::command();
        let told = command.get_arguments().filter(|argument| !argument.is_hide_set());
        for option in told.filter_map(|argument| argument.get_long()) {
            assert!(text.contains(&format!("--{option}")), "{option}");
        }
        assert!(text.contains("--keep") && text.contains("switchd.sock"));
        assert!(!text.contains("dataplane\\fR(8)"), "hidden commands are not told");
    }
}
