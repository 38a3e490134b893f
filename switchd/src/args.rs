//! The command line: text → checked options with defaults (the second form is [`Options`]).
//!
//! Defaults differ by who runs us. *Root* (uid 0 with the whole range of uids mapped): `/run/switchd` and
//! `/var/lib/switchd`. *Rootless* (any other uid, or uid 0 of a user namespace that maps one uid only):
//! `$XDG_RUNTIME_DIR/switchd.sock` and `$XDG_STATE_HOME/switchd`.

use crate::broker::messages::Options;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// Most workers: one a processor is useful, more never.
const WORKERS_MAX: usize = 64;

/// A software switch for virtual machines, containers and namespaces
///
/// Runs in the foreground and is controlled with switchctl(1). Its process is the broker, which keeps the
/// privileges; it starts the dataplane, which handles all traffic and requests, without privileges and in a
/// sandbox, and starts it again within milliseconds should it end. SIGTERM and SIGINT end both; the taps of
/// configured ports stay, without carrier, for the next start.
#[derive(Parser, Debug)]
#[command(name = "switchd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub daemon: Daemon,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show what switchd does: networks of guests in namespaces, a bond, NAT, real traffic, a capture
    ///
    /// Needs no root where ordinary users may make user namespaces, and no other program. Takes a few seconds
    /// and leaves one capture, whose path it prints.
    Demo {
        /// Leave it running, and print commands to try
        #[arg(long)]
        keep: bool,
    },
    /// The unprivileged process; started by the broker only
    #[command(hide = true)]
    Dataplane,
    /// Write the manual page into a folder
    #[command(hide = true)]
    Man { directory: PathBuf },
}

#[derive(Args, Debug)]
pub struct Daemon {
    /// Configuration (TOML) that seeds an empty state; afterwards the saved state rules
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the saved state [default: /var/lib/switchd; rootless: $XDG_STATE_HOME/switchd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder beneath which captures are written [default: STATE/captures]
    #[arg(long, value_name = "DIR")]
    pub capture_dir: Option<PathBuf>,
    /// Control socket [default: /run/switchd/switchd.sock; rootless: $XDG_RUNTIME_DIR/switchd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Access mode of the control socket, octal
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = parse_mode)]
    pub socket_mode: u32,
    /// Group of the control socket [default: switchd, if there is such a group]
    #[arg(long, value_name = "NAME")]
    pub socket_group: Option<String>,
    /// User that the dataplane process becomes [default: switchd, if there is such a user, else nobody]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Check the --config file, report, and exit
    #[arg(long, requires = "config")]
    pub check: bool,
    /// Threads that move frames [default: one for each processor, at most 4]
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<usize>,
    /// Processors for the workers, as in 0,2-3; used in turn
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuList>,
    /// End when the process that started us ends, however it does
    #[arg(long, hide = true)]
    pub die_with_parent: bool,
    /// Sleep when nothing arrives, or never
    #[arg(long, value_enum, default_value = "adaptive")]
    pub poll: Poll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Poll {
    Adaptive,
    Busy,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuList(pub Vec<usize>);

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected an octal mode, as in 0660".into()),
    }
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=WORKERS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("expected a number from 1 to {WORKERS_MAX}")),
    }
}

fn parse_cpus(text: &str) -> Result<CpuList, String> {
    const CPU_MAX: usize = 1023;
    let number = |text: &str| match text.parse::<usize>() {
        Ok(cpu) if cpu <= CPU_MAX => Ok(cpu),
        _ => Err(format!("{text:?} is no processor: expected a list as in 0,2-3")),
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("{part:?} runs backwards"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("processor {cpu} is named twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(CpuList(cpus))
}

/// What the defaults depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surroundings {
    pub rootless: bool,
    pub directory: PathBuf,
    pub runtime: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub processors: usize,
}

impl Surroundings {
    /// Of this process.
    pub fn look() -> std::io::Result<Surroundings> {
        let variable = |name: &str| {
            // The XDG rules: a relative path counts as unset.
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        Ok(Surroundings {
            rootless: is_rootless(
                rustix::process::geteuid().as_raw(),
                &std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default(),
            ),
            directory: std::env::current_dir()?,
            runtime: variable("XDG_RUNTIME_DIR"),
            state: variable("XDG_STATE_HOME"),
            home: variable("HOME"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }
}

/// `map` is the text of /proc/self/uid_map (user_namespaces(7)): inside, outside, count.
fn is_rootless(euid: u32, map: &str) -> bool {
    let mapped: u64 =
        map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    euid != 0 || mapped == 1
}

impl Daemon {
    pub fn options(&self, around: &Surroundings) -> anyhow::Result<Options> {
        let absolute = |path: &Path| around.directory.join(path);
        let state_dir = match (&self.state_dir, around.rootless) {
            (Some(path), _) => absolute(path),
            (None, false) => "/var/lib/switchd".into(),
            (None, true) => match (&around.state, &around.home) {
                (Some(state), _) => state.join("switchd"),
                (None, Some(home)) => home.join(".local/state/switchd"),
                (None, None) => anyhow::bail!(
                    "no place for the state: neither XDG_STATE_HOME nor HOME is set; give --state-dir"
                ),
            },
        };
        let socket = match (&self.socket, around.rootless, &around.runtime) {
            (Some(path), _, _) => absolute(path),
            (None, false, _) => "/run/switchd/switchd.sock".into(),
            (None, true, Some(runtime)) => runtime.join("switchd.sock"),
            (None, true, None) => {
                anyhow::bail!("no place for the control socket: XDG_RUNTIME_DIR is not set; give --socket")
            }
        };
        Ok(Options {
            config: self.config.as_deref().map(absolute),
            capture_dir: self.capture_dir.as_deref().map_or_else(|| state_dir.join("captures"), absolute),
            state_dir,
            socket,
            workers: self.workers.unwrap_or(around.processors.clamp(1, 4)),
            cpus: self.cpus.clone().map_or_else(Vec::new, |list| list.0),
            busy_poll: self.poll == Poll::Busy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            rootless: false,
            directory: "/here".into(),
            runtime: Some("/run/user/7".into()),
            state: None,
            home: Some("/home/u".into()),
            processors: 2,
        }
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn defaults_of_root_and_rootless() {
        let daemon = parse("switchd").unwrap().daemon;
        let root = daemon.options(&around()).unwrap();
        assert_eq!(root.state_dir, Path::new("/var/lib/switchd"));
        assert_eq!(root.capture_dir, Path::new("/var/lib/switchd/captures"));
        assert_eq!(root.socket, Path::new("/run/switchd/switchd.sock"));
        assert_eq!((root.workers, root.busy_poll), (2, false));
        let rootless = daemon.options(&Surroundings { rootless: true, ..around() }).unwrap();
        assert_eq!(rootless.state_dir, Path::new("/home/u/.local/state/switchd"));
        assert_eq!(rootless.socket, Path::new("/run/user/7/switchd.sock"));
        let bare = Surroundings { rootless: true, runtime: None, ..around() };
        assert!(daemon.options(&bare).unwrap_err().to_string().contains("--socket"));
    }

    #[test]
    fn relative_paths_become_absolute() {
        let daemon =
            parse("switchd --state-dir s --capture-dir ../c --socket x.sock --cpus 0,2-3 --poll busy")
                .unwrap()
                .daemon;
        let options = daemon.options(&around()).unwrap();
        assert_eq!(options.state_dir, Path::new("/here/s"));
        assert_eq!(options.capture_dir, Path::new("/here/../c"));
        assert_eq!(options.socket, Path::new("/here/x.sock"));
        assert_eq!((options.cpus, options.busy_poll), (vec![0, 2, 3], true));
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "switchd --workers 0",
            "switchd --workers 65",
            "switchd --cpus 3-1",
            "switchd --cpus 1,1",
            "switchd --cpus a",
            "switchd --poll never",
            "switchd --socket-mode 999",
            "switchd --check",
            "switchd --bogus",
            "switchd demo extra",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn rootless_is_another_uid_or_a_single_mapped_one() {
        assert!(!is_rootless(0, "         0          0 4294967295\n"));
        assert!(!is_rootless(0, "0 100000 65536\n"));
        assert!(is_rootless(0, "         0       1000          1\n"));
        assert!(is_rootless(1000, "         0          0 4294967295\n"));
    }
}
