//! The grammar of `levee top`.

use crate::limits::MAX_TOP;
use clap::{Args, ValueEnum};

#[derive(Args)]
#[command(after_help = "\
Redraws until Ctrl-C. With --once, --json, or where the output is no terminal, prints it once.

Figures are means over about ten seconds, as the daemons report them.

Examples:
  levee top
  levee top --by latency --limit 20
  levee top --once
  levee top --json")]
pub struct Top {
    /// What comes first
    #[arg(long, value_enum, default_value_t = Order::Requests)]
    pub by: Order,
    /// Lines of each kind
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_TOP)))]
    pub limit: u16,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Print it once
    #[arg(long)]
    pub once: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Order {
    Requests,
    Bytes,
    Latency,
}

impl Order {
    /// As the API calls it.
    pub fn word(self) -> &'static str {
        match self {
            Order::Requests => "requests",
            Order::Bytes => "bytes",
            Order::Latency => "latency",
        }
    }
}
