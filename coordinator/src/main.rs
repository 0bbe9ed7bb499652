//! pgconvoy: the operator's program. See the library for what it does.
use std::process::ExitCode;

use pgconvoy_coordinator::cli::Cli;
use pgconvoy_proto::settings;

fn main() -> anyhow::Result<ExitCode> {
    let cli: Cli = settings::parse("coordinator");
    settings::init_logging(settings::LogFormat::Text);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(pgconvoy_coordinator::run(cli));
    // A thread that still waits for the terminal or a name look-up must not hold up the end.
    runtime.shutdown_background();
    Ok(code.into())
}
