//! `seawall completions` and `seawall man`: what packages install beside the program.

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print completions for a shell.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn print(&self) {
        super::print(&completions(self.shell));
    }
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "seawall", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Print the manual page, of the program or of one command.
#[derive(Debug, Args)]
pub(super) struct ManualPage {
    /// The command
    command: Option<String>,
}

impl ManualPage {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        super::print(&page(self.command.as_deref())?);
        Ok(())
    }
}

fn page(name: Option<&str>) -> anyhow::Result<String> {
    let mut program = Cli::command();
    program.build();
    let command = match name {
        None => program,
        Some(name) => {
            let command = program.find_subcommand(name);
            let command = command.with_context(|| format!("there is no command {name}"))?;
            command.clone().display_name(format!("seawall-{name}"))
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_and_pages_know_every_command() {
        let shells = [Shell::Bash, Shell::Fish, Shell::Zsh].map(completions);
        let program = page(None).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            for text in &shells {
                assert!(text.contains(name), "{name}");
            }
            assert!(
                program.contains(&format!("seawall\\-{name}(1)")),
                "{name}: {program}"
            );
            let page = page(Some(name)).unwrap();
            assert!(
                page.starts_with(".ie") && page.contains(".SH SYNOPSIS"),
                "{page}"
            );
        }
        assert!(page(Some("nonsense")).is_err());
    }
}
