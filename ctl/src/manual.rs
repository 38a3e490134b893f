//! Completion scripts and manual pages, generated from the command line's definition.

use crate::args::{Cli, Shell};
use crate::failure::{Exit, Failure};
use crate::render;
use clap::CommandFactory;
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Zsh};
use std::path::Path;

/// Answers a shell that asks for completions (the variable COMPLETE is set), and ends.
pub fn complete() {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
}

/// Prints the script that makes a shell ask.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => return render::print(BASH),
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Zsh => &Zsh,
    };
    let mut script = Vec::new();
    completer.write_registration("COMPLETE", "switchctl", "switchctl", "switchctl", &mut script)?;
    render::print(&String::from_utf8_lossy(&script))
}

/// Bash cuts words at `:` and `=` (COMP_WORDBREAKS): `port:vm1` and `vlan=access=` are put together for the
/// question, and the part that Bash has already is cut off the answers. clap_complete's own script does not.
const BASH: &str = include_str!("completion.bash");

struct Page {
    name: String,
    text: Vec<u8>,
}

/// One page for each command, `switchctl-network-create.1` and so on.
pub fn man(directory: &Path) -> Result<(), Failure> {
    let named =
        |error: std::io::Error| Failure::new(Exit::Failed, format!("{}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(named)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    for page in pages {
        std::fs::write(directory.join(&page.name), &page.text).map_err(named)?;
    }
    Ok(())
}

fn collect(command: &clap::Command, pages: &mut Vec<Page>) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, pages)?;
    }
    let man = clap_mangen::Man::new(command.clone()).manual("switchd").source("switchd");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend_from_slice(ENDING.as_bytes());
    pages.push(Page { name: man.get_filename(), text });
    Ok(())
}

const ENDING: &str = include_str!("ending.man");

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Vec<Page> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut pages = Vec::new();
        collect(&command, &mut pages).unwrap();
        pages
    }

    #[test]
    fn every_command_has_a_page_and_hidden_ones_have_none() {
        let names: Vec<_> = pages().into_iter().map(|page| page.name).collect();
        for name in [
            "switchctl.1",
            "switchctl-network-create.1",
            "switchctl-capture.1",
            "switchctl-fdb-add.1",
            "switchctl-bond-create.1",
            "switchctl-forward-add.1",
            "switchctl-lease-list.1",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        assert!(!names.iter().any(|name| name == "switchctl-man.1"));
    }

    #[test]
    fn every_argument_and_command_is_described() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                // The name of the object that the command is about needs no words.
                let known = ["name", "network"].contains(&argument.get_id().as_str());
                let described = argument.get_help().is_some();
                assert!(described || known, "{path}: {}", argument.get_id());
            }
            command.get_subcommands().filter(|c| !c.is_hide_set()).for_each(|c| check(c, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn every_exit_status_is_on_the_page() {
        let page = pages().into_iter().find(|page| page.name == "switchctl.1").unwrap();
        let text = String::from_utf8(page.text).unwrap();
        for status in 0..=8 {
            assert!(text.contains(&format!(".TP\n.B {status}\n")), "{status}");
        }
    }
}
