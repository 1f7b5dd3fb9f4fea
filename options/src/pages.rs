//! Manual pages and completion, written by the programs themselves from what clap knows of their options.
//!
//! `PROGRAM --write-pages DIR` puts `man1` or `man8`, and `completions`, into DIR. It is for packaging and in no help.

use clap::Command;
use clap_complete::Shell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::exit;

const ASKED: &str = "--write-pages";

/// Writes them and exits, if these are the arguments that ask for them.
pub fn write_if_asked(command: Command, args: &[OsString]) {
    let [_, asked, dir] = args else { return };
    if asked != ASKED {
        return;
    }
    let name = command.get_name().to_string();
    match write(command, Path::new(dir)) {
        Ok(()) => exit(0),
        Err(e) => {
            eprintln!("{name}: cannot write pages into {}: {e}", dir.display());
            exit(1)
        }
    }
}

/// Daemons are administrators' programs: section 8.
fn section(name: &str) -> &'static str {
    if name.ends_with('d') { "8" } else { "1" }
}

fn write(command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_string();
    let section = section(&name);
    let (man, completions) = (dir.join(format!("man{section}")), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_complete::generate_to(Shell::Bash, &mut command.clone(), &name, &completions)?;
    fs::rename(completions.join(format!("{name}.bash")), completions.join(&name))?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, &name, section, &man)
}

/// A page for the command, and one for each command below it.
fn page(command: &Command, name: &str, section: &str, dir: &Path) -> io::Result<()> {
    let file = fs::File::create(dir.join(format!("{name}.{section}")))?;
    let page = clap_mangen::Man::new(command.clone().display_name(name.to_string())).section(section);
    page.date("").manual("Levee").render(&mut io::BufWriter::new(file))?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page_of_sub(sub, name, section, dir)?;
    }
    Ok(())
}

fn page_of_sub(sub: &Command, parent: &str, section: &str, dir: &Path) -> io::Result<()> {
    page(sub, &format!("{parent}-{}", sub.get_name()), section, dir)
}
